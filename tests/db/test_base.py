"""Ids and times: what every row has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import RFC_4122, UUID

import pytest
from sqlalchemy import func, literal, make_url, select
from sqlalchemy.exc import StatementError

from db.base import Base, Owned, UtcDateTime, new_id, use_deterministic_ids
from db.engine import build_engine
from db.models import Brand, Shooting
from db.session import Database, current_session
from tests.support.databases import on_postgresql
from tests.support.factories import make_brand, make_shooting


def test_ids_are_version_7_tell_the_time_and_grow() -> None:
    before = datetime.now(UTC)
    ids = [new_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert {(row_id.version, row_id.variant) for row_id in ids} == {(7, "specified in RFC 4122")}
    made = datetime.fromtimestamp((ids[0].int >> 80) / 1000, UTC)
    assert abs(made - before) < timedelta(seconds=1)


def test_a_time_comes_back_in_utc_with_its_microseconds(database: Database) -> None:
    due = datetime(2026, 3, 1, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    shooting_id = make_shooting(due_date=due).id
    with database.transaction(write=False):
        found = current_session().get_one(Shooting, shooting_id)
        assert found.due_date == due
        assert found.due_date.isoformat() == "2026-02-28T23:30:00.123456+00:00"


@on_postgresql
def test_a_time_comes_back_in_utc_from_a_server_that_is_elsewhere(database_url: str) -> None:
    elsewhere = make_url(database_url).update_query_dict({"options": "-c timezone=Asia/Tokyo"})
    engine = build_engine(elsewhere.render_as_string(hide_password=False), pool_size=1)
    moment = select(literal(datetime(2026, 3, 1, tzinfo=UTC), UtcDateTime()))
    with engine.connect() as connection:
        found = connection.scalar(moment)
        assert connection.scalar(select(func.current_setting("timezone"))) == "UTC"
    engine.dispose()
    assert found is not None
    assert (found.isoformat(), found.tzinfo) == ("2026-03-01T00:00:00+00:00", UTC)


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    naive = datetime(2026, 3, 1, tzinfo=UTC).replace(tzinfo=None)
    with pytest.raises(StatementError, match="without time zone"):
        make_shooting(due_date=naive)


def test_a_change_moves_updated_at_and_nothing_else_does(database: Database) -> None:
    brand_id = make_brand().id
    with database.transaction(write=True):
        brand = current_session().get_one(Brand, brand_id)
        created, updated = brand.created_at, brand.updated_at
        brand.name = "Another name"
    with database.transaction(write=False):
        brand = current_session().get_one(Brand, brand_id)
        assert brand.created_at == created
        assert brand.updated_at > updated


def test_every_owned_table_has_the_indexes_its_lists_walk() -> None:
    for mapper in Base.registry.mappers:
        if issubclass(mapper.class_, Owned):
            table = mapper.class_.__table__
            columns = [[column.name for column in index.columns] for index in table.indexes]
            assert ["owner_id", "organization_id", "created_at", "id"] in columns, table.name
            assert ["organization_id", "created_at", "id"] in columns, table.name


def test_relationships_are_never_loaded_behind_ones_back() -> None:
    eager = [
        str(relationship)
        for mapper in Base.registry.mappers
        for relationship in mapper.relationships
        if relationship.lazy != "raise"
    ]
    assert not eager


def test_counted_ids_are_the_same_in_the_same_order_and_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.base._deterministic_start", None)
    beginning = datetime(2026, 1, 1, tzinfo=UTC)

    def three() -> list[UUID]:
        use_deterministic_ids(beginning)
        return [new_id() for _ in range(3)]

    first = three()
    assert first == three()
    assert first == sorted(set(first))
    assert {(each.version, each.variant) for each in first} == {(7, RFC_4122)}
    assert first[0].int >> 80 == int(beginning.timestamp() * 1000)
