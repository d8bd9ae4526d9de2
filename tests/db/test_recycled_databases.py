"""Test that a database that tests share one after the other has the schema and no rows for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from db.base import Base
from db.engine import build_engine
from db.rls.session_role import bypass_rls
from db.session import Database
from tests.support import factories
from tests.support.databases import DatabaseFactory
from tests.support.recycled_databases import RecycledDatabases

CHANGES_OF_THE_SCHEMA = [
    "ALTER TABLE brands ADD COLUMN color text",
    "DROP POLICY system ON brands",
    "DROP INDEX ix_brands_owner",
    "CREATE FUNCTION a() RETURNS int LANGUAGE sql RETURN 1",
    "ALTER FUNCTION sartiq_user_id() RENAME TO sartiq_user",
    "ALTER TABLE brands DISABLE TRIGGER USER",
    "GRANT CREATE ON SCHEMA public TO sartiq_app",
    "CREATE TABLE of_a_test (id int)",
    "UPDATE alembic_version SET version_num = '9999'",
    "DROP SCHEMA public CASCADE",
]


@pytest.fixture
def dropped() -> list[str]:
    """Return the databases that were dropped instead of lent again."""
    return []


@pytest.fixture
def databases(database_factory: DatabaseFactory, dropped: list[str]) -> Iterator[RecycledDatabases]:
    with database_factory.create(database_factory.get_template()) as url:
        yield RecycledDatabases(lambda: url, dropped.append)


def execute(url: str, *statements: str) -> None:
    engine = build_engine(url, pool_size=1)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def count_rows(connection: Connection) -> dict[str, int]:
    """Return the number of rows of the tables that have any."""
    bypass_rls(connection)
    names = [table.name for table in Base.metadata.sorted_tables]
    counts = {name: connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in names}  # noqa: S608 - names of models
    return {name: count for name, count in counts.items() if count}


def test_the_next_test_finds_no_rows_and_the_first_numbers(databases: RecycledDatabases) -> None:
    with databases.lend() as url:
        database = Database(build_engine(url, pool_size=1))
        with database.transaction(write=True):
            factories.make_shot(factories.make_look(factories.make_shooting()))
            factories.make_audit_event()
        with database.engine.connect() as connection:
            assert count_rows(connection).keys() > {"audit_events", "changes", "row_counts", "shots"}
        # Its connection stays open, as that of a thread which a test leaves behind.
    with databases.lend() as again:
        assert again == url
        engine = build_engine(again, pool_size=1)
        with engine.connect() as connection:
            assert count_rows(connection) == {}
            used = text("SELECT sequencename FROM pg_sequences WHERE last_value > 1")
            assert connection.scalars(used).all() == []
        engine.dispose()
    database.dispose()


def test_a_database_without_changes_of_its_schema_is_lent_again(
    databases: RecycledDatabases, dropped: list[str]
) -> None:
    for _ in range(2):
        with databases.lend() as url:
            execute(url, "ANALYZE", "CREATE TEMPORARY TABLE of_a_session (id int)")
    assert dropped == []


@pytest.mark.parametrize("statement", CHANGES_OF_THE_SCHEMA)
def test_a_database_whose_schema_has_changed_is_dropped(
    databases: RecycledDatabases, dropped: list[str], statement: str
) -> None:
    with databases.lend() as url:
        execute(url, statement)
    assert dropped == [url]
