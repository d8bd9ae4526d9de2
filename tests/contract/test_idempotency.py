"""Suites over every operation with an `Idempotency-Key`: a request that is sent twice has one effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from db.base import Base
from db.models import AttemptCount, IdempotencyKey, Membership, TokenFamily, User
from handlers.app import Application
from tests.contract.operations import OPERATIONS, Operation, Request, unknown_id
from tests.contract.tenant import Tenant, is_for_superusers, make_image
from tests.contract.test_foreign_ids import without_request_id
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, drop_rate_limit_headers
from tests.support.idempotency import HEADER, mark_in_progress

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
# Sessions and attempts to enter a password: each request of the suite has its own session.
UNCOUNTED_TABLES = {table.__tablename__ for table in (AttemptCount, IdempotencyKey, TokenFamily)}

# The property that makes a request differ, where that is not the name.
OTHER_BODIES: dict[str, dict[str, Any]] = {
    "create_looks": {"notes": "Another"},
    "create_prediction_comment": {"text": "Another"},
    "add_product_image_from_url": {"type": "detail"},
    "add_member": {"role": "viewer"},
    "add_identity": {"code": "oc_of-another-sign-in"},
    "add_identity_provider_domain": {"domain": "another.example"},
    "create_invitation": {"role": "viewer"},
    "create_subscription": {"payment_id": "another"},
    "create_user": {"full_name": "Another"},
    "request_account_deletion": {"password": "another"},
    "confirm_totp": {"otp": "another"},
    "create_look": {"notes": "Another"},
    "create_export": {"name_template": "another"},
    "create_product_import": {"mode": "create"},
    "create_webhook_endpoint": {"description": "Another"},
    "redeliver_webhooks": {"only_failed": False},
    "create_presigned_url": {"filename": "another.jpg"},
    "share_prediction": {"expires_in_seconds": 61},
    "create_review_link": {"expires_in_days": 8},
    "generate_shooting": {"seed": 99},
    "generate_shot": {"seed": 1},
    "create_generation": {"seed": 1},
    "batch_products": {"items": [{"action": "create", "body": {"name": "Another"}}]},
    "batch_predictions": {"items": [{"action": "reopen", "id": KEY}]},
    "batch_shots": {"items": [{"action": "approve", "id": KEY}]},
}


def accepts_key(operation: Operation) -> bool:
    """Return whether an operation has the header."""
    return any(parameter["name"] == "Idempotency-Key" for parameter in operation.parameters)


KEYED_OPERATIONS = [name for name, operation in OPERATIONS.items() if accepts_key(operation)]
ORGANIZATION_OPERATIONS = [
    name
    for name in KEYED_OPERATIONS
    if not is_for_superusers(OPERATIONS[name])
    # Operations of every user, in no organization.
    and name
    not in (
        "create_organization",
        "create_presigned_url",
        "request_account_deletion",
        "request_account_export",
        "confirm_totp",
        "register_passkey",
        "add_identity",
    )
]


@pytest.fixture
def send(app: Application, tenant: Tenant) -> Callable[..., ClientResponse]:
    """Return a function that sends a request with the key, by default as a user with the permission."""

    def send_with_key(request: Request, user: User | None = None) -> ClientResponse:
        headers = auth_headers(app, user or tenant.caller_for(request.operation))
        return request.send(app, {**headers, HEADER: KEY})

    return send_with_key


def count_rows(app: Application) -> dict[str, int]:
    """Return the number of rows per table."""
    with app.database.transaction(write=False) as reading:
        return {
            table.name: reading.scalar(select(func.count()).select_from(table))
            for table in Base.metadata.sorted_tables
            if table.name not in UNCOUNTED_TABLES
        }


def with_other_content(request: Request) -> Request:
    """Return the request with other content."""
    if request.body is None:
        return request.replace(path=dict.fromkeys(request.path, unknown_id()))
    if request.media_type == "multipart/form-data":
        return request.replace(body={**request.body, "file": make_image(size=(40, 40))})
    changes = OTHER_BODIES.get(request.operation.operation_id, {"name": "Another"})
    return request.replace(body={**request.body, **changes})


@pytest.mark.parametrize("name", KEYED_OPERATIONS)
def test_a_repeated_request_replays_the_response_and_changes_nothing(
    name: str, app: Application, tenant: Tenant, send: Callable[..., ClientResponse]
) -> None:
    request = tenant.request_for(name)
    first = send(request)
    assert first.status == request.operation.success_status, first.body
    assert "idempotency-replayed" not in first.headers
    before = count_rows(app)
    replay = send(request)
    assert (replay.status, replay.body) == (first.status, first.body)
    assert replay.headers.pop("idempotency-replayed") == "true"
    assert replay.headers.pop("x-request-id") != first.headers.pop("x-request-id")
    assert drop_rate_limit_headers(replay.headers) == drop_rate_limit_headers(first.headers)
    # A request without body and path parameters has no content that could differ.
    if request.body is not None or request.path:
        reused = send(with_other_content(request))
        assert (reused.status, reused.json()["code"]) == (422, "idempotency_key_reused")
        assert reused.error_types == {("header", "Idempotency-Key"): "idempotency_key_reused"}
    mark_in_progress(app, KEY)
    in_progress = send(request)
    assert (in_progress.status, in_progress.json()["code"]) == (409, "idempotency_key_in_progress")
    assert in_progress.headers["retry-after"] == "1"
    assert count_rows(app) == before


@pytest.mark.parametrize("name", ORGANIZATION_OPERATIONS)
def test_s21_a_caller_without_the_permission_gets_no_replay(
    name: str, app: Application, tenant: Tenant, other_tenant: Tenant, send: Callable[..., ClientResponse]
) -> None:
    request, admin = tenant.request_for(name), factories.make_user()
    membership = factories.make_membership(tenant.organization, admin, role="admin")
    # `add_member` requires that the new member shares an organization with the caller.
    factories.make_membership(tenant.sibling_organization, admin)
    assert send(request, admin).status == request.operation.success_status
    with app.database.transaction(write=True) as writing:
        writing.get_one(Membership, membership.id).role = "viewer"
    # Viewers may call a batch; its items are denied, and a response of their own shows what they can read.
    keeps_permission = request.operation.raw["x-permission"].endswith(":read")
    assert send(request, admin).status == (200 if keeps_permission else 403)
    with app.database.transaction(write=True) as writing:
        writing.execute(delete(Membership).where(Membership.id == membership.id))
    for user in (admin, other_tenant.owner):
        with_key = send(request, user)
        without_key = request.send(app, auth_headers(app, user))
        assert with_key.status == 404
        assert without_request_id(with_key) == without_request_id(without_key)
