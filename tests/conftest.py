"""The databases that tests run on: real ones, both kinds, with the schema that the migrations make.

A test gets a `database` whose transactions are savepoints on one connection, so that the code under test
commits as it always does and nothing remains. Rows are made with `tests.factories`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

import db.base
from db.engines import make_engine
from db.migrations import upgrade
from db.session import Database
from tests import factories

DEFAULT_ADMIN_URL = "postgresql+psycopg://postgres@127.0.0.1/postgres"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the option that `make security` sets."""
    parser.addoption("--long", action="store_true", help="run the long forms of tests that have one")


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether a test that measures or repeats should do so thoroughly."""
    return bool(request.config.getoption("--long"))


def _admin_engine() -> Engine:
    url = make_url(os.environ.get("TEST_POSTGRESQL_URL", DEFAULT_ADMIN_URL)).update_query_dict(
        {"connect_timeout": "3"}
    )
    return make_engine(url.render_as_string(hide_password=False), pool_size=1).execution_options(
        isolation_level="AUTOCOMMIT"
    )


def _with_postgresql_database() -> Iterator[str]:
    """Make a database with a random name, so that parallel runs do not meet, and drop it at the end."""
    engine = _admin_engine()
    name = f"test_{uuid.uuid4().hex}"
    try:
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
    except OperationalError as error:
        engine.dispose()
        message = f"no PostgreSQL server to test on (TEST_POSTGRESQL_URL): {error.orig}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    yield engine.url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    engine.dispose()


@pytest.fixture(autouse=True)
def _ids_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test that travels in time leave no clock of ids behind that is ahead of the real one."""
    monkeypatch.setattr("db.base._last_id_time", db.base._last_id_time)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


@pytest.fixture(scope="session")
def empty_database_url(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database of its own without any table, for the tests of the migrations."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('empty') / 'empty.db'}"
    else:
        yield from _with_postgresql_database()


@pytest.fixture(scope="session")
def database_url(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database with the newest schema and no rows. What is committed there remains."""
    if database_kind == "sqlite":
        path: Path = tmp_path_factory.mktemp("database") / "test.db"
        url = f"sqlite:///{path}"
        upgrade(url)
        yield url
    else:
        for url in _with_postgresql_database():
            upgrade(url)
            yield url


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
