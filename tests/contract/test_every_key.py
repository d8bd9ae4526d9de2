"""Suites over every operation that takes an Idempotency-Key: sent twice, it happens once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from db.base import Base
from db.models import IdempotencyKey, Membership, TokenFamily, User
from handlers.app import Application
from tests import factories
from tests.contract.every_operation import OPERATIONS, Operation, Request, unknown_id
from tests.contract.keys import HEADER, back_to_work
from tests.contract.mini.asking import Reply, without_limits
from tests.contract.world import World, is_for_superusers, picture
from tests.serving import bearer

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
NOT_COUNTED = {IdempotencyKey.__tablename__, TokenFamily.__tablename__}

# A property that makes the request another one, where it is not the name.
OTHER_BODIES: dict[str, dict[str, Any]] = {
    "add_member": {"role": "viewer"},
    "create_invitation": {"role": "viewer"},
    "create_subscription": {"payment_id": "another"},
    "create_user": {"full_name": "Another"},
    "create_look": {"notes": "Another"},
    "create_export": {"name_template": "another"},
    "create_webhook_endpoint": {"description": "Another"},
    "redeliver_webhooks": {"only_failed": False},
    "generate_shooting": {"seed": 99},
    "generate_shot": {"seed": 1},
    "create_generation": {"seed": 1},
}


def takes_key(operation: Operation) -> bool:
    """Tell whether the contract gives an operation the header."""
    return any(parameter["name"] == "Idempotency-Key" for parameter in operation.parameters)


KEYED = [name for name, operation in OPERATIONS.items() if takes_key(operation)]
OF_ORGANIZATIONS = [
    name for name in KEYED if not is_for_superusers(OPERATIONS[name]) and name != "create_organization"
]


@pytest.fixture
def send(app: Application, world: World) -> Callable[..., Reply]:
    """Send a request with the key, by default as somebody who may."""

    def send_it(request: Request, user: User | None = None) -> Reply:
        headers = bearer(app, user or world.caller_for(request.operation))
        return request.send(app, {**headers, HEADER: KEY})

    return send_it


def rows(app: Application) -> dict[str, int]:
    """How many rows each table has."""
    with app.database.transaction(write=False) as reading:
        return {
            table.name: reading.scalar(select(func.count()).select_from(table))
            for table in Base.metadata.sorted_tables
            if table.name not in NOT_COUNTED
        }


def without_request_id(reply: Reply) -> tuple[int, dict[str, str], Any]:
    headers = {name: value for name, value in reply.headers.items() if name != "x-request-id"}
    body = {name: value for name, value in reply.json().items() if name != "request_id"}
    return reply.status, headers, body


def other_request(request: Request) -> Request:
    """The same request with another content."""
    if request.body is None:
        return request.changed(path=dict.fromkeys(request.path, unknown_id()))
    if request.media_type == "multipart/form-data":
        return request.changed(body={**request.body, "file": picture(size=(40, 40))})
    changes = OTHER_BODIES.get(request.operation.operation_id, {"name": "Another"})
    return request.changed(body={**request.body, **changes})


@pytest.mark.parametrize("name", KEYED)
def test_a_request_that_is_sent_again_is_answered_again_and_changes_nothing(
    name: str, app: Application, world: World, send: Callable[..., Reply]
) -> None:
    request = world.request_for(name)
    first = send(request)
    assert first.status == request.operation.success, first.body
    assert "idempotency-replayed" not in first.headers
    before = rows(app)
    again = send(request)
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers.pop("idempotency-replayed") == "true"
    assert again.headers.pop("x-request-id") != first.headers.pop("x-request-id")
    assert without_limits(again.headers) == without_limits(first.headers)
    reused = send(other_request(request))
    assert (reused.status, reused.json()["code"]) == (422, "idempotency_key_reused")
    assert reused.types == {("header", "Idempotency-Key"): "idempotency_key_reused"}
    back_to_work(app, KEY)
    in_progress = send(request)
    assert (in_progress.status, in_progress.json()["code"]) == (409, "idempotency_key_in_progress")
    assert in_progress.headers["retry-after"] == "1"
    assert rows(app) == before


@pytest.mark.parametrize("name", OF_ORGANIZATIONS)
def test_s21_who_may_no_longer_gets_what_is_answered_today(
    name: str, app: Application, world: World, stranger: World, send: Callable[..., Reply]
) -> None:
    request, admin = world.request_for(name), factories.make_user()
    membership = factories.make_membership(world.organization, admin, role="admin")
    # Who is taken in is a colleague of whoever takes in.
    factories.make_membership(world.sister, admin)
    assert send(request, admin).status == request.operation.success
    with app.database.transaction(write=True) as writing:
        writing.get_one(Membership, membership.id).role = "viewer"
    assert send(request, admin).status == 403
    with app.database.transaction(write=True) as writing:
        writing.execute(delete(Membership).where(Membership.id == membership.id))
    for user in (admin, stranger.owner):
        with_key = send(request, user)
        without_key = request.send(app, bearer(app, user))
        assert with_key.status == 404
        assert without_request_id(with_key) == without_request_id(without_key)
