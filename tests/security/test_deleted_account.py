"""S43: an account that is deleted while it writes gets a declared answer, never 500."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm.exc import StaleDataError

from db.base import Base
from db.caller import Caller
from db.libpq.statements import Fetched, Query
from db.models import Change, User
from db.queries.users import delete_user_rows, lock_users
from db.session import Database, current_session
from handlers.app import Application
from handlers.common.permissions import API_KEYS
from handlers.pipeline import endpoint as endpoint_module
from handlers.pipeline.event_loop import PlainWrite
from tests.contract.operations import OPERATIONS, Operation, Request
from tests.contract.tenant import Tenant, is_for_superusers
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import ClientResponse
from tests.support.concurrency import PausedCall
from tests.support.factories.api_keys import api_key_headers

WRITES = [
    name
    for name, operation in OPERATIONS.items()
    if operation.method != "GET" and not operation.is_public and not is_for_superusers(operation)
]


class DeletionWhileLoaded:
    """Deletes the caller's account, in a transaction of its own, after an endpoint has loaded it."""

    def __init__(self, database: Database, number: int) -> None:
        self._database, self._number = database, number
        self.is_done = False

    def load(self, load_caller: Callable[[dict[str, Any]], Caller], claims: dict[str, Any]) -> Caller:
        """Load the caller; delete the account at the call of this number."""
        caller = load_caller(claims)
        self._number -= 1
        if self._number == 0:
            run_in_thread(delete_account, self._database, caller.user_id)
            self.is_done = True
        return caller


def delete_account(database: Database, user_id: UUID) -> None:
    """Delete an account with its rows, if it is not yet deleted."""
    with database.transaction(write=True):
        lock_users({user_id})
        if (account := current_session().get(User, user_id)) is not None:
            delete_user_rows(account)


def run_in_thread(function: Any, *arguments: Any) -> None:
    """Call a function in a thread, which has no transaction of its own yet."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function, *arguments).result()


Credentials = Callable[[Application, Tenant, User], dict[str, str]]


def with_token(app: Application, _tenant: Tenant, account: User) -> dict[str, str]:
    return auth_headers(app, account)


def with_idempotency_key(app: Application, _tenant: Tenant, account: User) -> dict[str, str]:
    return {**auth_headers(app, account), "idempotency-key": f'"{account.id}"'}


def with_api_key(app: Application, tenant: Tenant, account: User) -> dict[str, str]:
    return api_key_headers(app, tenant.organization, API_KEYS, account)


def send_and_delete(
    app: Application,
    database: Database,
    operation: Operation,
    number: int,
    credentials: Credentials = with_token,
) -> ClientResponse | None:
    """Send a request whose account is deleted meanwhile; None if the endpoint loads it fewer times."""
    with database.transaction(write=True):
        tenant = Tenant(app.settings)
        account = factories.make_user()
        factories.make_membership(tenant.organization, account, role="admin")
        factories.make_subscription(account)
        request = tenant.request_for(operation.operation_id)
        headers = credentials(app, tenant, account)
    plain = app.plain_writes.get(operation.operation_id)
    endpoints = [app.endpoints[operation.operation_id], *([plain._endpoint] if plain else [])]
    deletion = DeletionWhileLoaded(database, number)
    with pytest.MonkeyPatch.context() as patch:
        for endpoint in endpoints:
            patch.setattr(endpoint, "_load_caller", partial(deletion.load, endpoint._load_caller))
        response = request.send(app, headers)
    return response if deletion.is_done else None


@pytest.fixture
def app(application: Application, own_database: Database) -> Iterator[Application]:
    """Yield the application on a database with real commits."""
    with application.database.switched_to(own_database):
        yield application


@pytest.mark.slow("it makes a tenant for each operation")
@pytest.mark.parametrize("credentials", [with_token, with_idempotency_key, with_api_key])
def test_s43_every_operation_of_an_account_that_is_deleted_meanwhile_has_a_declared_answer(
    app: Application, own_database: Database, credentials: Credentials
) -> None:
    failed = {}
    for name in WRITES:
        operation = OPERATIONS[name]
        if not has_credentials(operation, credentials):
            continue
        for number in (1, 2, 3, 4):
            response = send_and_delete(app, own_database, operation, number, credentials)
            if response is None:
                break
            if response.status >= 500 or response.status not in operation.statuses:
                failed[name, number] = response.body
    assert failed == {}


def has_credentials(operation: Operation, credentials: Credentials) -> bool:
    """Return whether an operation accepts credentials of this kind."""
    if credentials is with_api_key:
        return any("ApiKey" in schemes for schemes in operation.raw.get("security", []))
    names = {parameter["name"] for parameter in operation.parameters}
    return credentials is with_token or "Idempotency-Key" in names


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("create_brand", 1),  # its owner is missing at the commit
        ("add_product_image", 3),  # a savepoint fails
        ("create_presigned_url", 1),  # it declares no 404
        ("update_current_user", 1),  # the account itself is missing
        ("change_password", 1),
    ],
)
def test_s43_a_deleted_account_is_401(
    app: Application, own_database: Database, name: str, number: int
) -> None:
    response = send_and_delete(app, own_database, OPERATIONS[name], number)
    assert response is not None
    assert (response.status, response.json()["code"]) == (401, "invalid_token")
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("name", "is_deleted", "status", "code"),
    [
        ("get_current_user", True, 401, "invalid_token"),
        # It declares 404, and an id that is unknown by now is no defect.
        ("get_user", True, 404, "not_found"),
        ("get_current_user", False, 500, "internal_error"),
    ],
)
def test_s43_a_read_of_an_account_that_is_deleted_meanwhile_is_401(
    app: Application,
    own_database: Database,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    is_deleted: bool,
    status: int,
    code: str,
) -> None:
    with own_database.transaction(write=True):
        tenant = Tenant(app.settings)
        account = factories.make_user()
        headers, request = auth_headers(app, account), tenant.request_for(name)
    if request.path:
        request.path["user_id"] = str(account.id)
    fetch = own_database.fetch

    async def fetch_in_parts(queries: Sequence[Query], is_snapshot: bool = False) -> Fetched:
        """Send the query of the caller, and after the deletion those of the read."""
        caller = await fetch(queries[:1])
        if len(queries) == 1:
            return caller
        if is_deleted:
            run_in_thread(delete_account, own_database, account.id)
        rows = (await fetch(queries[1:])).rows if is_deleted else [[] for _ in queries[1:]]
        return Fetched([*caller.rows, *rows], 0)

    monkeypatch.setattr(own_database, "fetch", fetch_in_parts)
    response = request.send(app, headers)
    assert (response.status, response.json()["code"]) == (status, code)
    assert ("www-authenticate" in response.headers) == (status == 401)


def test_s43_an_error_of_an_account_that_exists_stays_what_it_is(
    app: Application, own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_database.transaction(write=True):
        tenant = Tenant(app.settings)
        headers, request = auth_headers(app, tenant.owner), tenant.request_for("update_current_user")

    def fail(*_: Any) -> None:
        raise StaleDataError("a defect")

    monkeypatch.setattr(app.endpoints["update_current_user"], "_handler", fail)
    assert request.send(app, headers).status == 500


async def pass_on(*_: Any) -> None:
    """Leave a plain write to a thread."""


@pytest.mark.parametrize(
    "name", ["create_brand", "create_product", "create_shooting", "create_presigned_url"]
)
@pytest.mark.slow("it waits for locks")
def test_s43_the_deletion_waits_for_a_write_that_came_first_and_deletes_it_too(
    app: Application, own_database: Database, name: str
) -> None:
    with own_database.transaction(write=True):
        account = factories.make_user()
        superuser = auth_headers(app, factories.make_user(is_superuser=True))
        headers = auth_headers(app, account)
    deletion = Request(OPERATIONS["delete_user"], path={"user_id": str(account.id)})
    with own_database.transaction(write=True):
        request = Tenant(app.settings, personal=True).request_for(name)
    request.query = {}
    request.body = {key: value for key, value in request.body.items() if not key.endswith("_id")}
    with pytest.MonkeyPatch.context() as patch:
        # On the event loop, rows are written and committed in one message: nothing comes in between.
        patch.setattr(PlainWrite, "serve", pass_on)
        # The rows are written, and the transaction is about to commit.
        pause = PausedCall(patch, endpoint_module, "_build_response", max_seconds=0.3)
        written, deleted = pause.run_during_pause(
            lambda: deletion.send(app, superuser), lambda: request.send(app, headers)
        )
    assert written.status in (200, 201), written.body
    assert deleted.status == 204, deleted.body
    with own_database.transaction(write=False) as session:
        for table in Base.metadata.sorted_tables:
            # Changes outlive their tenant.
            if "owner_id" in table.c and table is not Change.__table__:
                rows = session.scalar(select(func.count()).where(table.c.owner_id == account.id))
                assert rows == 0, table.name
