"""Plain writes: the event loop does what a thread does, in few messages, and a thread decides the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DBAPIError

from db.base import Identified
from db.libpq.reader import Sent, TransactionInSavepoint
from db.libpq.statements import Query
from db.models import AuditEvent, Brand, Membership, WebhookDelivery
from handlers.app import Application
from handlers.common.plain_writes import is_plain_write
from handlers.pipeline.event_loop import PlainWrite
from handlers.pipeline.request_context import RequestContext
from tests.contract.conftest import FreshTenant
from tests.contract.operations import OPERATIONS
from tests.contract.tenant import Tenant
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, describe_response
from tests.support.failing_subtests import FailingSubtests
from tests.support.snapshots import snapshot_rows

_VARIABLE = re.compile(
    r'[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+00:00)?|"[0-9a-f]{20,32}"|msg_\w+|SKU-\d+'
)
MAX_MESSAGES = {"create_product": 4}
"""How many messages take more than two: the brand and the webhook endpoints of the tenant are loaded."""


class Messages:
    """The messages of transactions on the event loop, and how requests were served."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bool]] = []
        self.on_event_loop: list[bool] = []


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Messages:
    """Record the messages of this test."""
    recorded, send, serve = Messages(), TransactionInSavepoint.send, PlainWrite.serve

    async def record(
        self: TransactionInSavepoint, queries: Sequence[Query], commits: bool = False
    ) -> list[Sent]:
        recorded.sent.append((len(queries), commits))
        return await send(self, queries, commits)

    async def record_serving(self: PlainWrite, context: RequestContext) -> Any:
        response = await serve(self, context)
        recorded.on_event_loop.append(response is not None)
        return response

    monkeypatch.setattr(TransactionInSavepoint, "send", record)
    monkeypatch.setattr(PlainWrite, "serve", record_serving)
    return recorded


@pytest.fixture
def plain_writes(app: Application) -> list[str]:
    """Return the operations that run on the event loop."""
    return [name for name, endpoint in app.endpoints.items() if is_plain_write(endpoint._handler)]


def send_write(
    app: Application, tenant: Tenant, name: str, headers: dict[str, str] | None = None
) -> ClientResponse:
    """Return the response to a request of the tenant's owner, by default in a new session."""
    return tenant.request_for(name).send(app, headers or auth_headers(app, tenant.owner))


def describe_effects(response: ClientResponse) -> dict[str, Any]:
    """Return what a write has sent and stored, without ids, times and tags."""
    session = factories.get_session()
    models: list[type[Identified]] = [AuditEvent, WebhookDelivery]
    stored = {
        str(model.__tablename__): [
            {key: value for key, value in vars(row).items() if not key.startswith("_")}
            for row in session.scalars(select(model).order_by(model.id)).all()
        ]
        for model in models
    }
    headers = {name for name in response.headers if not name.startswith("ratelimit")}
    sent = response.status, sorted(headers), response.body.decode()
    return {
        name: _VARIABLE.sub("*", json.dumps(value, default=str))
        for name, value in {"sent": sent, **stored}.items()
    }


def test_the_event_loop_sends_and_stores_what_a_thread_does(
    app: Application,
    plain_writes: list[str],
    fresh_tenant: FreshTenant,
    messages: Messages,
    monkeypatch: pytest.MonkeyPatch,
    failing_subtests: FailingSubtests,
) -> None:
    async def pass_on(*_: Any) -> None:
        return None

    assert len(plain_writes) > 15
    for name in plain_writes:
        with failing_subtests.test(name):
            messages.on_event_loop.clear()
            with fresh_tenant() as tenant:
                response = send_write(app, tenant, name)
                assert response.status == OPERATIONS[name].success_status, describe_response(response)
                on_event_loop = describe_effects(response)
            assert messages.on_event_loop == [True]
            with monkeypatch.context() as patch, fresh_tenant() as tenant:
                patch.setattr(PlainWrite, "serve", pass_on)
                assert describe_effects(send_write(app, tenant, name)) == on_event_loop


def test_a_plain_write_takes_few_messages_and_commits_with_the_last(
    app: Application,
    plain_writes: list[str],
    fresh_tenant: FreshTenant,
    messages: Messages,
    failing_subtests: FailingSubtests,
) -> None:
    for name in plain_writes:
        for more in ({}, {"idempotency-key": f'"{name}"'}):
            with failing_subtests.test(f"{name} {more}"), fresh_tenant() as tenant:
                headers = auth_headers(app, tenant.owner)
                # The caller is known afterwards.
                send_write(app, tenant, "create_resolution_preset", headers)
                messages.sent.clear()
                send_write(app, tenant, name, {**headers, **more})
                commits = [commits for _, commits in messages.sent]
                assert len(commits) <= MAX_MESSAGES.get(name, 2), messages.sent
                assert commits == [False] * (len(commits) - 1) + [True]
                if name.endswith("_resolution_preset") and not more:
                    # The caller, and the row if there is one; the write and its audit event. Nothing is
                    # committed before the caller is compared.
                    counts = [count for count, _ in messages.sent]
                    assert counts == ([3, 0] if name.startswith("create") else [2, 2])


@pytest.mark.parametrize("role", ["viewer", None])
def test_a_known_caller_loses_a_role_before_the_next_write(
    role: str | None, app: Application, tenant: Tenant, messages: Messages
) -> None:
    headers = auth_headers(app, tenant.owner)
    assert send_write(app, tenant, "create_brand", headers).status == 201
    of_owner = Membership.id == tenant.find_membership(tenant.owner).id
    change = delete(Membership) if role is None else update(Membership).values(role=role)
    factories.get_session().execute(change.where(of_owner))
    assert send_write(app, tenant, "create_brand", headers).status == (404 if role is None else 403)
    assert messages.on_event_loop == [True, False]


def test_a_commit_whose_result_is_unknown_is_not_repeated(
    app: Application, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = TransactionInSavepoint.send

    async def lose_the_connection(
        self: TransactionInSavepoint, queries: Sequence[Query], commits: bool = False
    ) -> list[Sent]:
        sent = await send(self, queries, commits)
        if commits:
            lost = psycopg.OperationalError("the connection is lost")
            raise DBAPIError("COMMIT", None, lost, connection_invalidated=True)
        return sent

    monkeypatch.setattr(TransactionInSavepoint, "send", lose_the_connection)
    assert send_write(app, tenant, "create_brand").status in (500, 503)
    created = select(Brand).where(Brand.name == tenant.request_for("create_brand").body["name"])
    assert len(factories.get_session().scalars(created).all()) == 1


def test_a_request_that_fails_on_the_event_loop_leaves_nothing_of_its_first_attempt(
    app: Application, tenant: Tenant, messages: Messages
) -> None:
    headers = auth_headers(app, tenant.owner)
    assert send_write(app, tenant, "create_product", headers).status == 201
    before = snapshot_rows(app)
    again = send_write(app, tenant, "create_product", headers)
    assert (again.status, again.json()["code"]) == (409, "sku_taken")
    assert messages.on_event_loop == [True, False]
    after = snapshot_rows(app)
    assert {name for name in before if before[name] != after[name]} <= {"audit_events"}
