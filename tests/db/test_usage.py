"""Test that the recorded usage equals the rows, however they are inserted, changed and deleted."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.base import new_id, utc_now
from db.engine import build_engine
from db.migrations import downgrade, upgrade
from db.models import Generation, MediaResource, Organization, Prediction, UsageDimension, UsageRecord
from db.models.usage import NO_KEY, TOTAL
from db.rls.session_role import APPLICATION_ROLE, SYSTEM, SessionRole
from db.session import Database, current_session, rollback_and_continue, switch_role
from db.usage.queries import Usage, UsageGroup, compact_usage, groups_query, parse_groups, total_query
from studio.jobs.maintenance import MAINTENANCE_TASKS
from tests.support import factories as make
from tests.support.concurrency import run_concurrently

DAYS = (date(2000, 1, 1), date(2199, 12, 31))
Amounts = dict[tuple[UUID, str, UUID, date], Usage]


def sum_usage(organization_id: UUID, first: date, last: date) -> Usage:
    """Return the usage of an organization from the first to the last day."""
    return Usage(*current_session().execute(*total_query(organization_id, first, last)).one())


def list_usage(organization_id: UUID, dimension: UsageDimension, *arguments: Any) -> list[UsageGroup]:
    """Return groups of usage; the arguments are those of `groups_query`."""
    query = groups_query(organization_id, dimension, *arguments)
    return parse_groups(dimension, current_session().execute(*query))


def recorded(session: Session) -> Amounts:
    """Return the recorded usage other than 0."""
    session.flush()
    key = (UsageRecord.organization_id, UsageRecord.dimension, UsageRecord.key, UsageRecord.day)
    sums = [func.sum(getattr(UsageRecord, name)) for name in Usage._fields]
    rows = session.execute(select(*key, *sums).group_by(*key)).all()
    return {tuple(row[:4]): Usage(*map(int, row[4:])) for row in rows if any(row[4:])}


def counted(session: Session) -> Amounts:
    """Return the usage of the rows that exist. Of a failed generation, only its present cost is known."""
    amounts: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])

    def add(row: Any, day: date, *values: int) -> None:
        keys = {"day": None, "model": row.model_id, "member": row.owner_id}
        keys |= {"api_key": row.api_key_id, "product": row.product_id}
        for dimension, key in keys.items() if row.organization_id else ():
            group = amounts[row.organization_id, dimension, key or NO_KEY, day]
            group[:] = [sum(pair) for pair in zip(group, values, strict=True)]

    for generation in session.scalars(select(Generation)):
        failed = generation.status in ("failed", "expired")
        add(generation, generation.created_at.date(), generation.cost_credits, 1, 0, 0)
        add(generation, generation.updated_at.date(), 0, 0, int(failed), 0)
    for media in session.scalars(select(MediaResource)):
        add(media, media.created_at.date(), 0, 0, 0, media.file_size)
    return {key: Usage(*values) for key, values in amounts.items() if any(values)}


def make_rows() -> Organization:
    """Create generations and images of an organization, and of its owner personally."""
    owner = make.make_user()
    organization = make.make_organization(owner)
    for scope in ({"organization": organization}, {"owner": owner}):
        product = make.make_product(**scope)
        values = {"product_id": product.id, "api_key_id": new_id(), "cost_credits": 4}
        make.make_prediction(make.make_generation(**scope, **values))
        make.make_generation(**scope, cost_credits=1)
        make.make_media(**scope, product_id=product.id, file_size=500)
    return organization


def test_usage_follows_inserts_updates_and_deletes(session: Session) -> None:
    organization = make_rows()
    before = counted(session)
    assert recorded(session) == before != {}
    member = make.make_user()
    session.execute(update(MediaResource).values(file_size=MediaResource.file_size + 7))
    session.execute(
        update(MediaResource)
        .where(MediaResource.organization_id == organization.id)
        .values(owner_id=member.id, model_id=make.make_generation_model().id)
    )
    session.execute(update(Generation).values(status="failed", cost_credits=0))
    assert recorded(session) == counted(session)
    # Again: the failure of a generation counts once.
    session.execute(update(Generation).values(status="failed"))
    assert recorded(session) == counted(session)
    session.execute(delete(Prediction))
    session.execute(delete(MediaResource))
    assert recorded(session) == counted(session)


def test_usage_of_personal_rows_is_not_recorded(session: Session) -> None:
    make.make_prediction(make.make_generation(owner=make.make_user(), cost_credits=4))
    assert recorded(session) == {}


def test_images_that_move_to_another_organization_take_their_usage_with_them(session: Session) -> None:
    organization, other = make_rows(), make.make_organization()
    session.execute(
        update(MediaResource)
        .where(MediaResource.organization_id == organization.id)
        .values(organization_id=other.id)
    )
    assert recorded(session) == counted(session)
    assert sum_usage(other.id, *DAYS).storage_bytes > 0
    assert sum_usage(organization.id, *DAYS).storage_bytes == 0


def test_deleted_generations_still_count(session: Session) -> None:
    organization = make_rows()
    before = sum_usage(organization.id, *DAYS)
    assert (before.credits, before.generations) == (5, 2)
    session.execute(delete(Prediction))
    session.execute(delete(Generation))
    assert sum_usage(organization.id, *DAYS) == before


def test_a_refund_and_a_failure_count_on_their_own_day(session: Session) -> None:
    organization, yesterday = make.make_organization(), utc_now() - timedelta(days=1)
    generation = make.make_generation(organization=organization, cost_credits=4, created_at=yesterday)
    generation.status, generation.cost_credits = "expired", 0
    session.flush()
    groups = list_usage(organization.id, UsageDimension.DAY, *DAYS, None, 10)
    assert [(group.day, group.usage) for group in groups] == [
        (yesterday.date(), Usage(4, 1, 0, 0)),
        (utc_now().date(), Usage(-4, 0, 1, 0)),
    ]


def test_a_day_begins_at_midnight_in_utc(session: Session) -> None:
    organization = make.make_organization()
    for hour, minute in ((0, 0), (23, 59)):
        created_at = datetime(2026, 3, 29, hour, minute, tzinfo=UTC)
        make.make_generation(organization=organization, created_at=created_at)
    (group,) = list_usage(organization.id, UsageDimension.DAY, *DAYS, None, 10)
    assert (group.day, group.usage.generations) == (date(2026, 3, 29), 2)


def test_a_rollback_undoes_records(session: Session) -> None:
    make_rows()
    rollback_and_continue()
    assert recorded(session) == {}


def test_groups_are_read_in_pages(session: Session) -> None:
    organization = make.make_organization()
    products = sorted(new_id() for _ in range(5))
    for product_id in (*products, None, *products):
        make.make_generation(organization=organization, product_id=product_id, cost_credits=2)
    pages, after = [], None
    while page := list_usage(organization.id, UsageDimension.PRODUCT, *DAYS, after, 2):
        pages.append([(group.key, group.usage.credits) for group in page])
        after = page[-1].key
    assert [len(page) for page in pages] == [2, 2, 2]
    assert [group for page in pages for group in page] == [(NO_KEY, 2), *((key, 4) for key in products)]


def test_a_group_without_usage_is_left_out(session: Session) -> None:
    organization = make.make_organization()
    media = make.make_media(organization=organization, product_id=new_id())
    assert len(list_usage(organization.id, UsageDimension.PRODUCT, *DAYS, None, 10)) == 1
    session.delete(media)
    session.flush()
    assert list_usage(organization.id, UsageDimension.PRODUCT, *DAYS, None, 10) == []


def test_compaction_keeps_the_usage(session: Session) -> None:
    make_rows()
    before = recorded(session)
    for _ in range(2):
        assert not compact_usage(session.connection())
        assert recorded(session) == before
        assert set(session.scalars(select(UsageRecord.entry))) == {TOTAL}
        session.execute(update(Generation).values(cost_credits=Generation.cost_credits + 1))
        before = recorded(session)
        assert len(set(session.scalars(select(UsageRecord.entry)))) > 1


def test_the_maintenance_task_compacts_usage() -> None:
    assert "compaction of usage records" in {task.name for task in MAINTENANCE_TASKS}


def test_a_caller_reads_only_the_usage_of_their_organizations_and_writes_none(session: Session) -> None:
    mine, other = make_rows(), make_rows()
    switch_role(SessionRole(APPLICATION_ROLE, mine.owner_id, (mine.id,)))
    assert set(session.scalars(select(UsageRecord.organization_id))) == {mine.id}
    assert sum_usage(other.id, *DAYS) == Usage(0, 0, 0, 0)
    # The trigger writes for the caller, who cannot.
    make.make_media(organization=mine, file_size=10)
    for statement in (delete(UsageRecord), update(UsageRecord).values(credits=0)):
        savepoint = session.begin_nested()
        with pytest.raises(DBAPIError, match="permission denied"):
            session.execute(statement)
        savepoint.rollback()
    switch_role(SYSTEM)
    assert recorded(session) == counted(session)


def test_concurrent_writers_of_an_organization_do_not_wait_and_lose_nothing(own_database: Database) -> None:
    with own_database.transaction(write=True):
        organization = make.make_organization()
        model_id = make.make_generation_model().id

    def write() -> None:
        for _repeated in range(10):
            with own_database.transaction(write=True) as session:
                session.add(
                    Generation(
                        owner_id=organization.owner_id,
                        organization_id=organization.id,
                        model_id=model_id,
                        cost_credits=3,
                    )
                )
                session.flush()
                compact_usage(session.connection())

    run_concurrently(*[write] * 4)
    with own_database.transaction(write=True) as session:
        compact_usage(session.connection())
        assert sum_usage(organization.id, *DAYS) == Usage(120, 40, 0, 0)


@pytest.mark.slow("the migration is released; `make upgrade` runs it on a release with rows")
def test_the_usage_of_rows_from_before_is_recorded(own_database_url: str) -> None:
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True) as session:
        organization = make.make_organization()
        subscription = make.make_subscription()
        look = make.make_look(make.make_shooting(organization=organization))
        generation = make.make_generation(make.make_shot(look), cost_credits=4, status="completed")
        asked = make.make_generation(
            organization=organization,
            status="failed",
            inputs={"asked": {"product_id": str(look.main_product_id), "tool": None}},
        )
        refined = make.make_generation(organization=organization, cost_credits=1)
        prediction = make.make_prediction(generation)
        refined.source_prediction_id = prediction.id
        photo = make.make_product_image(make.make_product(organization=organization))
        for owner, amount in ((generation, 4), (asked, 2), (asked, -2), (refined, 1)):
            kind = "charge" if amount > 0 else "refund"
            make.make_credit_movement(subscription, generation_id=owner.id, kind=kind, amount=amount)
        session.flush()
        before = recorded(session)
        product_id, photo_product_id = look.main_product_id, photo.product_id
        photo_bytes = session.get_one(MediaResource, photo.media_id).file_size
        image_bytes = session.get_one(MediaResource, prediction.media_id).file_size
    downgrade(own_database_url, "0031")
    upgrade(own_database_url)
    with database.transaction(write=False) as session:
        today = [group.usage for group in list_usage(organization.id, UsageDimension.DAY, *DAYS, None, 9)]
        assert today == [usage for key, usage in before.items() if key[1] == "day"]
        groups = list_usage(organization.id, UsageDimension.PRODUCT, *DAYS, None, 9)
        assert {group.key: group.usage for group in groups} == {
            product_id: Usage(5, 3, 1, image_bytes),
            photo_product_id: Usage(0, 0, 0, photo_bytes),
        }
        assert session.execute(text("SELECT count(*) FROM usage_records")).scalar_one() > 0
    database.dispose()
