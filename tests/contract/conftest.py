"""Fixtures: an app that serves the mini contract, the real app, and two tenants in their original state."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
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
from tests.support.change_feed import BEHIND_RUNNING, pages_end_at
from tests.support.client import ClientResponse, send_request
from tests.support.row_level_security import disable_row_level_security

# The provoker checks what only some responses have. Pytest shows the values of its assertions, too.
pytest.register_assert_rewrite("tests.contract.provoker")

TenantSnapshot = tuple[Connection, tuple[bytes, bytes]]
FreshTenant = Callable[[], AbstractContextManager[Tenant]]
LoadOtherTenant = Callable[[Session], Tenant]


@pytest.fixture(scope="session")
def mini() -> Iterator[Any]:
    """Yield an app that serves the mini contract."""
    app = create_mini_app()
    yield app
    app.bridge.pool.shutdown()


@pytest.fixture(scope="session")
def call(mini: Any) -> Callable[..., ClientResponse]:
    """Return a function that sends a request with a valid token to the mini contract's app.

    Usage: `call(method, target, headers, body=..., as_json=...)`.
    """
    bearer = {"authorization": f"Bearer {build_token()}"}

    def send(method: str, target: str, headers: dict[str, str] | None = None, **body: Any) -> ClientResponse:
        return send_request(mini, method, f"/api/v1{target}", {**bearer, **(headers or {})}, **body)

    return send


@pytest.fixture
def outcomes(mini: Any) -> list[str]:
    """Return the outcomes of this test's transactions, in order."""
    database: RecordingDatabase = mini.database
    database.outcomes.clear()
    return database.outcomes


@pytest.fixture(scope="module", autouse=True)
def _feed_of_the_running_transaction() -> Iterator[None]:
    """Let the change feed list the changes of the transaction in which a test runs."""
    with pages_end_at(BEHIND_RUNNING):
        yield


@pytest.fixture(scope="session")
def app(application: Application) -> Application:
    """Return the real application."""
    return application


@pytest.fixture(scope="module")
def tenant_snapshot(
    app: Application, database_engine: Engine, has_row_level_security: bool
) -> Iterator[TenantSnapshot]:
    """Yield a connection with the rows of two tenants, and each tenant pickled.

    Each test unpickles a copy: creating the rows takes as long as most tests, and unpickling is much faster
    than a deep copy.
    """
    with database_engine.connect() as connection:
        outer = connection.begin()
        if not has_row_level_security:
            disable_row_level_security(connection)
        set_role(connection, SYSTEM)
        with _session_on(connection) as session, factories.use_session(session):
            tenants = Tenant(app.settings), Tenant(app.settings)
            session.commit()
            session.expunge_all()
            for tenant in tenants:
                tenant.reload(session)
        session.expunge_all()
        yield connection, (pickle.dumps(tenants[0]), pickle.dumps(tenants[1]))
        outer.rollback()


@contextmanager
def _rolled_back_session(app: Application, connection: Connection) -> Iterator[Session]:
    """Use a session for rows, and its connection for the app; undo what both have written at the end."""
    savepoint = connection.begin_nested()
    database = Database.from_connection(connection)
    try:
        with (
            _session_on(connection) as session,
            factories.use_session(session),
            app.database.switched_to(database),
        ):
            yield session
    finally:
        savepoint.rollback()


@pytest.fixture
def tenant_session(app: Application, tenant_snapshot: TenantSnapshot) -> Iterator[Session]:
    """Yield a session for the rows of this test, which the app uses and which are rolled back."""
    connection, _ = tenant_snapshot
    with _rolled_back_session(app, connection) as session:
        yield session


def _load(pickled: bytes, session: Session) -> Tenant:
    tenant: Tenant = pickle.loads(pickled)  # noqa: S301 - this process pickled it
    tenant.attach_to(session)
    return tenant


@pytest.fixture(scope="module")
def personal_snapshot(app: Application, tenant_snapshot: TenantSnapshot) -> bytes:
    """Return a pickled personal tenant, whose rows are there until the end of the module."""
    connection, _ = tenant_snapshot
    with _session_on(connection) as session, factories.use_session(session):
        tenant = Tenant(app.settings, personal=True)
        session.commit()
        session.expunge_all()
        tenant.reload(session)
        session.expunge_all()
    return pickle.dumps(tenant)


@pytest.fixture
def personal_tenant(personal_snapshot: bytes, tenant_session: Session) -> Tenant:
    """Return a user with personal rows of every kind."""
    return _load(personal_snapshot, tenant_session)


@pytest.fixture
def tenant(tenant_snapshot: TenantSnapshot, tenant_session: Session) -> Tenant:
    """Return the first tenant."""
    return _load(tenant_snapshot[1][0], tenant_session)


@pytest.fixture(scope="module")
def fresh_tenant(app: Application, tenant_snapshot: TenantSnapshot) -> FreshTenant:
    """Return a context manager that yields the first tenant in its original state, for each case of a test.

    What a case changes is undone at its end, also if it fails. That takes a millisecond, another test five.
    """
    connection, (pickled, _) = tenant_snapshot
    return partial(_open_tenant, app, connection, pickled)


@pytest.fixture
def fresh_personal_tenant(
    app: Application, tenant_snapshot: TenantSnapshot, personal_snapshot: bytes
) -> FreshTenant:
    """Return the same for the user with personal rows."""
    connection, _ = tenant_snapshot
    return partial(_open_tenant, app, connection, personal_snapshot)


@contextmanager
def _open_tenant(app: Application, connection: Connection, pickled: bytes) -> Iterator[Tenant]:
    with _rolled_back_session(app, connection) as session:
        yield _load(pickled, session)


@pytest.fixture(scope="module")
def load_other_tenant(tenant_snapshot: TenantSnapshot) -> LoadOtherTenant:
    """Return a function that loads the second tenant in a session of `fresh_tenant`."""
    return partial(_load, tenant_snapshot[1][1])


@pytest.fixture
def other_tenant(tenant_snapshot: TenantSnapshot, tenant_session: Session) -> Tenant:
    """Return the second tenant."""
    return _load(tenant_snapshot[1][1], tenant_session)


def _session_on(connection: Connection) -> Session:
    return Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
