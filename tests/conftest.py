"""The databases that tests run on: real ones, both kinds, with the schema that the migrations make.

A test gets a `database` whose transactions are savepoints on one connection, so that the code under test
commits as it always does and nothing remains. Rows are made with `tests.support.factories`.
"""

from __future__ import annotations

import os
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
from db.engine import build_engine
from db.migrations import upgrade
from db.models import AuditEvent, RowCount
from db.session import Database
from tests.support import factories
from tests.support.databases import create_database
from tests.support.requirements import skip_or_fail

if TYPE_CHECKING:
    from tests.resilience.processes import RedisServer


# Servers that tests start in this folder must not read a developer's own `.env`.
os.environ.setdefault("ENV_FILE", os.devnull)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the option that `make security` sets."""
    parser.addoption("--long", action="store_true", help="run the long forms of tests that have one")


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether a test that measures or repeats should do so thoroughly."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def _reset_id_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test that travels in time leave no clock of ids behind that is ahead of the real one."""
    monkeypatch.setattr("db.base._last_id_time", db.base._last_id_time)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


@contextmanager
def _create_test_database(kind: str, folder: Path) -> Iterator[str]:
    """Give the address of a fresh database, or end the test where there is no PostgreSQL."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(create_database(kind, folder))
        except OperationalError as error:
            skip_or_fail(
                f"a PostgreSQL that lets TEST_POSTGRESQL_URL in (make services installs one): {error.orig}"
            )
        yield url


@pytest.fixture(scope="session")
def empty_database_url(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database of its own without any table, for the tests of the migrations."""
    with _create_test_database(database_kind, tmp_path_factory.mktemp("empty")) as url:
        yield url


@pytest.fixture(scope="session")
def database_url(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database with the newest schema and no rows. What is committed there remains."""
    with _create_test_database(database_kind, tmp_path_factory.mktemp("database")) as url:
        upgrade(url)
        yield url


@pytest.fixture
def own_database_url(database_kind: str, tmp_path: Path) -> Iterator[str]:
    """The address of a database of the test's own without any table, for servers."""
    with _create_test_database(database_kind, tmp_path) as url:
        yield url


@pytest.fixture
def own_database(own_database_url: str) -> Iterator[Database]:
    """A database of the test's own that commits for real, for threads with connections of their own."""
    upgrade(own_database_url)
    database = Database(build_engine(own_database_url, pool_size=8))
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def broker() -> Iterator[RedisServer]:
    """A Redis of the module's own, which may be broken."""
    # Here, because most tests do well without what starts processes.
    from tests.resilience.processes import DependencyMissing, run_redis

    with ExitStack() as stack:
        try:
            running = stack.enter_context(run_redis())
        except DependencyMissing as missing:
            skip_or_fail(str(missing))
        yield running


@pytest.fixture(scope="session")
def database_engine(database_url: str) -> Iterator[Engine]:
    """One engine for the whole run."""
    engine = build_engine(database_url, pool_size=4)
    yield engine
    engine.dispose()


@pytest.fixture
def database(database_engine: Engine) -> Iterator[Database]:
    """A database that forgets everything after the test; threads work on it too, in turns."""
    with database_engine.execution_options(write=True).connect() as connection:
        outer = connection.begin()
        bound = Database.from_connection(connection)
        with (
            Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session,
            factories.use_session(session),
        ):
            yield bound
        outer.rollback()


@pytest.fixture
def committing_database(database_url: str) -> Iterator[Database]:
    """A database that commits for real, for tests of concurrency: leave no rows behind."""
    database = Database(build_engine(database_url, pool_size=4))
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
