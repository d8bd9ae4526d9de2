"""The databases that tests run on: real ones, both kinds, with the schema that the migrations make.

A test gets a `database` whose transactions are savepoints on one connection, so that the code under test
commits as it always does and nothing remains. Rows are made with `tests.factories`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, delete
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

import db.base
from db.base import Base
from db.engines import make_engine
from db.migrations import upgrade
from db.models import AuditEvent, RowCount
from db.session import Database
from tests import factories
from tests.absent import lacking
from tests.databases import fresh_database

if TYPE_CHECKING:
    from tests.faults.stage import Broker


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the option that `make security` sets."""
    parser.addoption("--long", action="store_true", help="run the long forms of tests that have one")


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether a test that measures or repeats should do so thoroughly."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def _ids_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test that travels in time leave no clock of ids behind that is ahead of the real one."""
    monkeypatch.setattr("db.base._last_id_time", db.base._last_id_time)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


@contextmanager
def _database_of(kind: str, folder: Path) -> Iterator[str]:
    """Give the address of a fresh database, or end the test where there is no PostgreSQL."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(fresh_database(kind, folder))
        except OperationalError as error:
            lacking(
                f"a PostgreSQL that lets TEST_POSTGRESQL_URL in (make services installs one): {error.orig}"
            )
        yield url


@pytest.fixture(scope="session")
def empty_database_url(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database of its own without any table, for the tests of the migrations."""
    with _database_of(database_kind, tmp_path_factory.mktemp("empty")) as url:
        yield url


@pytest.fixture(scope="session")
def database_url(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database with the newest schema and no rows. What is committed there remains."""
    with _database_of(database_kind, tmp_path_factory.mktemp("database")) as url:
        upgrade(url)
        yield url


@pytest.fixture
def own_database_url(database_kind: str, tmp_path: Path) -> Iterator[str]:
    """The address of a database of the test's own without any table, for servers."""
    with _database_of(database_kind, tmp_path) as url:
        yield url


@pytest.fixture
def own_database(own_database_url: str) -> Iterator[Database]:
    """A database of the test's own that commits for real, for threads with connections of their own."""
    upgrade(own_database_url)
    database = Database(make_engine(own_database_url, pool_size=8))
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A Redis of the module's own, which may be broken."""
    # Here, because most tests do well without what starts processes.
    from tests.faults.stage import NotThere, own_broker

    with ExitStack() as stack:
        try:
            running = stack.enter_context(own_broker())
        except NotThere as missing:
            lacking(str(missing))
        yield running


@pytest.fixture(scope="session")
def database_engine(database_url: str) -> Iterator[Engine]:
    """One engine for the whole run."""
    engine = make_engine(database_url, pool_size=4)
    yield engine
    engine.dispose()


@pytest.fixture
def database(database_engine: Engine) -> Iterator[Database]:
    """A database that forgets everything after the test; threads work on it too, in turns."""
    with database_engine.execution_options(write=True).connect() as connection:
        outer = connection.begin()
        bound = Database.bound(connection)
        with (
            Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session,
            factories.making_in(session),
        ):
            yield bound
        outer.rollback()


@pytest.fixture
def committing_database(database_url: str) -> Iterator[Database]:
    """A database that commits for real, for tests of concurrency: leave no rows behind."""
    database = Database(make_engine(database_url, pool_size=4))
    yield database
    database.dispose()


@pytest.fixture
def emptied_database(committing_database: Database) -> Iterator[Database]:
    """A database that commits for real, for what needs several connections or processes; empty afterwards."""
    yield committing_database
    with committing_database.transaction(write=True) as writing:
        for table in reversed(Base.metadata.sorted_tables):
            # Nobody may delete events, and none are made without requests.
            if table is not AuditEvent.__table__:
                writing.execute(delete(table))
        # Once more: each deletion was counted.
        writing.execute(delete(RowCount))
