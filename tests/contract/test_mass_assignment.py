"""Clients cannot set properties that the server owns (mass assignment: OWASP API3, ASVS V15.3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from handlers.app import Application
from tests.contract.operations import OPERATIONS, Operation, Request, resolve
from tests.contract.tenant import Tenant
from tests.support.app import auth_headers
from tests.support.failing_subtests import FailingSubtests
from tests.support.snapshots import snapshot_rows

SERVER_OWNED = {
    *("id", "owner_id", "organization_id", "role", "is_superuser", "hashed_password", "status", "created_at"),
    *("updated_at", "credits_total", "credits_used", "credits_remaining", "cost_credits", "revision"),
}
"""Properties that attackers try first; the properties of an operation's response are added."""


def properties(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the names of a schema's properties."""
    schema = resolve(schema)
    yield from schema.get("properties", {})
    for part in schema.get("allOf", []):
        yield from properties(part)


def list_unwritable_properties(operation: Operation) -> set[str]:
    """Return the properties of the response and of `SERVER_OWNED` that the request does not accept."""
    success = resolve(operation.raw["responses"][str(operation.success_status)])
    shown = set(properties(success.get("content", {}).get("application/json", {}).get("schema", {})))
    return (shown | SERVER_OWNED) - set(properties(operation.body_schema("application/json")))


def build_request(tenant: Tenant, operation: Operation, forbidden: set[str]) -> Request:
    """Return a request that would succeed without these properties of its body."""
    request = tenant.request_for(operation.operation_id, is_prepared=False)
    request.media_type = "application/json"
    request.body = tenant.body_for(operation, "application/json") | dict.fromkeys(forbidden, "mine")
    return request


def test_s04_properties_of_the_server_are_rejected_and_change_nothing(
    app: Application, tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    forbidden = {
        name: list_unwritable_properties(operation)
        for name, operation in OPERATIONS.items()
        if operation.forbids_unknown_properties
    }
    assert forbidden
    # Building requests and credentials can create rows, so the snapshot follows.
    requests = {name: build_request(tenant, OPERATIONS[name], forbidden[name]) for name in forbidden}
    credentials = {user.id: auth_headers(app, user) for user in (tenant.owner, tenant.superuser)}
    before = snapshot_rows(app)
    for name, request in requests.items():
        with failing_subtests.test(name):
            assert {"id", "created_at", "is_superuser"} & forbidden[name]
            caller = tenant.caller_for(request.operation)
            response = request.send(app, {} if request.operation.is_public else credentials[caller.id])
            assert response.status == 422, response.body[:600]
            rejected = {
                loc[1]
                for loc, kind in response.error_types.items()
                if kind == "extra_forbidden" and len(loc) == 2
            }
            assert rejected == forbidden[name]
        # Not in the block above: a request that is not rejected must not hide what it changes.
        with failing_subtests.test(f"{name} changes nothing"):
            previous, before = before, snapshot_rows(app)
            assert before == previous
