"""The mini contract, and two tenants of the real one: made once, and as they were made for every test."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from db.actors import SYSTEM, become
from db.session import Database
from handlers.app import Application
from tests import factories
from tests.contract.mini.asking import Reply, ask
from tests.contract.mini.server import RememberingDatabase, mini_app, token
from tests.contract.world import World
from tests.serving import app_for_tests

Settled = tuple[Connection, bytes]


@pytest.fixture(scope="session")
def mini() -> Iterator[Any]:
    """The engine serving the mini contract."""
    app = mini_app()
    yield app
    app.bridge.pool.shutdown()


@pytest.fixture(scope="session")
def call(mini: Any) -> Callable[..., Reply]:
    """Ask the mini contract with a valid token: `call(method, target, headers, body=..., as_json=...)`."""
    bearer = {"authorization": f"Bearer {token()}"}

    def ask_it(method: str, target: str, headers: dict[str, str] | None = None, **body: Any) -> Reply:
        return ask(mini, method, f"/api/v1{target}", {**bearer, **(headers or {})}, **body)

    return ask_it


@pytest.fixture
def ends(mini: Any) -> list[str]:
    """How the transactions of this test ended."""
    database: RememberingDatabase = mini.database
    database.ends.clear()
    return database.ends


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The real application, made once for a module."""
    made = app_for_tests(tmp_path_factory.mktemp("contract"))
    yield made
    made.bridge.pool.shutdown()


@pytest.fixture(scope="module")
def settled(app: Application, database_engine: Engine) -> Iterator[Settled]:
    """A connection on which two tenants live, and these two, pickled to be copied for each test.

    To make them takes as long as most tests do; to pickle is faster than a deep copy by far.
    """
    with database_engine.execution_options(write=True).connect() as connection:
        outer = connection.begin()
        become(connection, SYSTEM)
        with _session_on(connection) as session, factories.making_in(session):
            worlds = World(app.settings), World(app.settings)
            session.commit()
            session.expunge_all()
            for world in worlds:
                world.settle(session)
        session.expunge_all()
        yield connection, pickle.dumps(worlds)
        outer.rollback()


@pytest.fixture
def worlds(app: Application, settled: Settled) -> Iterator[tuple[World, World]]:
    """Two tenants with a row of every kind, and the app on this test's database."""
    connection, pickled = settled
    untouched = connection.begin_nested()
    with _session_on(connection) as session, factories.making_in(session):
        copies: tuple[World, World] = pickle.loads(pickled)  # noqa: S301 - this process pickled it
        for world in copies:
            world.move_to(session)
        with app.database.switched_to(Database.bound(connection)):
            yield copies
    untouched.rollback()


@pytest.fixture
def world(worlds: tuple[World, World]) -> World:
    """One tenant."""
    return worlds[0]


@pytest.fixture
def stranger(worlds: tuple[World, World]) -> World:
    """Another one."""
    return worlds[1]


def _session_on(connection: Connection) -> Session:
    return Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
