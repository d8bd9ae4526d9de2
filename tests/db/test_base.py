"""Test the ids and times of rows, and the rules for all models."""

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
from tests.support.factories import make_brand, make_shooting


def test_ids_are_version_7_contain_the_time_and_increase() -> None:
    before = datetime.now(UTC)
    ids = [new_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert {(row_id.version, row_id.variant) for row_id in ids} == {(7, "specified in RFC 4122")}
    id_time = datetime.fromtimestamp((ids[0].int >> 80) / 1000, UTC)
    assert abs(id_time - before) < timedelta(seconds=1)


def test_a_time_is_read_back_in_utc_with_its_microseconds(database: Database) -> None:
    due = datetime(2026, 3, 1, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    shooting_id = make_shooting(due_date=due).id
    with database.transaction(write=False):
        found = current_session().get_one(Shooting, shooting_id)
        assert found.due_date == due
        assert found.due_date.isoformat() == "2026-02-28T23:30:00.123456+00:00"


def test_a_time_is_read_back_in_utc_from_a_server_in_another_time_zone(database_url: str) -> None:
    tokyo_url = make_url(database_url).update_query_dict({"options": "-c timezone=Asia/Tokyo"})
    engine = build_engine(tokyo_url.render_as_string(hide_password=False), pool_size=1)
    moment = select(literal(datetime(2026, 3, 1, tzinfo=UTC), UtcDateTime()))
    with engine.connect() as connection:
        found = connection.scalar(moment)
        assert connection.scalar(select(func.current_setting("timezone"))) == "UTC"
    engine.dispose()
    assert found is not None
    assert (found.isoformat(), found.tzinfo) == ("2026-03-01T00:00:00+00:00", UTC)


def test_a_time_without_time_zone_is_rejected(database: Database) -> None:
    naive = datetime(2026, 3, 1, tzinfo=UTC).replace(tzinfo=None)
    with pytest.raises(StatementError, match="without time zone"):
        make_shooting(due_date=naive)


def test_a_change_updates_only_updated_at(database: Database) -> None:
    brand_id = make_brand().id
    with database.transaction(write=True):
        brand = current_session().get_one(Brand, brand_id)
        created, updated = brand.created_at, brand.updated_at
        brand.name = "Another name"
    with database.transaction(write=False):
        brand = current_session().get_one(Brand, brand_id)
        assert brand.created_at == created
        assert brand.updated_at > updated


def test_every_owned_table_has_the_indexes_of_its_lists() -> None:
    for mapper in Base.registry.mappers:
        if issubclass(mapper.class_, Owned):
            table = mapper.class_.__table__
            columns = [[column.name for column in index.columns] for index in table.indexes]
            assert ["owner_id", "organization_id", "created_at", "id"] in columns, table.name
            assert ["organization_id", "created_at", "id"] in columns, table.name


def test_no_relationship_is_loaded_lazily() -> None:
    eager = [
        str(relationship)
        for mapper in Base.registry.mappers
        for relationship in mapper.relationships
        if relationship.lazy != "raise"
    ]
    assert not eager


def test_deterministic_ids_are_reproducible_and_increase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.base._deterministic_start", None)
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def three_ids() -> list[UUID]:
        use_deterministic_ids(start)
        return [new_id() for _ in range(3)]

    first = three_ids()
    assert first == three_ids()
    assert first == sorted(set(first))
    assert {(row_id.version, row_id.variant) for row_id in first} == {(7, RFC_4122)}
    assert first[0].int >> 80 == int(start.timestamp() * 1000)
