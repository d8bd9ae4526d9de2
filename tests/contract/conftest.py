"""The mini contract, and two tenants of the real one: made once, and as they were made for every test."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from db.rls.session_role import SYSTEM, set_role
from db.session import Database
from handlers.app import Application
from tests.contract.mini.server import RecordingDatabase, build_token, create_mini_app
from tests.contract.tenant import Tenant
from tests.support import factories
from tests.support.app import create_test_app
from tests.support.client import ClientResponse, send_request

TenantSnapshot = tuple[Connection, bytes]


@pytest.fixture(scope="session")
def mini() -> Iterator[Any]:
    """The engine serving the mini contract."""
    app = create_mini_app()
    yield app
    app.bridge.pool.shutdown()


@pytest.fixture(scope="session")
def call(mini: Any) -> Callable[..., ClientResponse]:
    """Ask the mini contract with a valid token: `call(method, target, headers, body=..., as_json=...)`."""
    bearer = {"authorization": f"Bearer {build_token()}"}

    def ask_it(
        method: str, target: str, headers: dict[str, str] | None = None, **body: Any
    ) -> ClientResponse:
        return send_request(mini, method, f"/api/v1{target}", {**bearer, **(headers or {})}, **body)

    return ask_it


@pytest.fixture
def outcomes(mini: Any) -> list[str]:
    """How the transactions of this test ended."""
    database: RecordingDatabase = mini.database
    database.outcomes.clear()
    return database.outcomes


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The real application, made once for a module."""
    made = create_test_app(tmp_path_factory.mktemp("contract"))
    yield made
    made.bridge.pool.shutdown()


@pytest.fixture(scope="module")
def tenant_snapshot(app: Application, database_engine: Engine) -> Iterator[TenantSnapshot]:
    """A connection on which two tenants live, and these two, pickled to be copied for each test.

    To make them takes as long as most tests do; to pickle is faster than a deep copy by far.
    """
    with database_engine.execution_options(write=True).connect() as connection:
        outer = connection.begin()
        set_role(connection, SYSTEM)
        with _session_on(connection) as session, factories.use_session(session):
            worlds = Tenant(app.settings), Tenant(app.settings)
            session.commit()
            session.expunge_all()
            for world in worlds:
                world.reload(session)
        session.expunge_all()
        yield connection, pickle.dumps(worlds)
        outer.rollback()


@pytest.fixture
def tenants(app: Application, tenant_snapshot: TenantSnapshot) -> Iterator[tuple[Tenant, Tenant]]:
    """Two tenants with a row of every kind, and the app on this test's database."""
    connection, pickled = tenant_snapshot
    untouched = connection.begin_nested()
    with _session_on(connection) as session, factories.use_session(session):
        copies: tuple[Tenant, Tenant] = pickle.loads(pickled)  # noqa: S301 - this process pickled it
        for world in copies:
            world.attach_to(session)
        with app.database.switched_to(Database.from_connection(connection)):
            yield copies
    untouched.rollback()


@pytest.fixture
def tenant(tenants: tuple[Tenant, Tenant]) -> Tenant:
    """One tenant."""
    return tenants[0]


@pytest.fixture
def other_tenant(tenants: tuple[Tenant, Tenant]) -> Tenant:
    """Another one."""
    return tenants[1]


def _session_on(connection: Connection) -> Session:
    return Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
