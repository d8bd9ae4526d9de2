"""Nobody sets what the server owns by sending it along (API3, ASVS V15.3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from handlers.app import Application
from tests.contract.operations import OPERATIONS, Operation, resolve
from tests.contract.tenant import Tenant
from tests.support.app import auth_headers
from tests.support.snapshots import snapshot_rows

SERVER_OWNED = {
    *("id", "owner_id", "organization_id", "role", "is_superuser", "hashed_password", "status", "created_at"),
    *("updated_at", "credits_total", "credits_used", "credits_remaining", "cost_credits", "revision"),
}
"""What attackers try first, whether or not an answer shows it; the answers of an operation add their own."""


def properties(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the names of a schema's own properties."""
    schema = resolve(schema)
    yield from schema.get("properties", {})
    for part in schema.get("allOf", []):
        yield from properties(part)


def list_unwritable_properties(operation: Operation) -> set[str]:
    """Return what an answer shows or an attacker guesses, and the request does not take."""
    answer = resolve(operation.raw["responses"][str(operation.success_status)])
    shown = set(properties(answer.get("content", {}).get("application/json", {}).get("schema", {})))
    return (shown | SERVER_OWNED) - set(properties(operation.body_schema("application/json")))


@pytest.mark.parametrize("name", [name for name, one in OPERATIONS.items() if one.forbids_unknown_properties])
def test_s04_what_the_server_owns_is_refused_by_name_and_changes_nothing(
    name: str, app: Application, tenant: Tenant
) -> None:
    request = tenant.request_for(name)
    operation = request.operation
    forbidden = list_unwritable_properties(operation)
    assert {"id", "created_at", "is_superuser"} & forbidden
    request.media_type = "application/json"
    request.body = tenant.body_for(operation, "application/json") | dict.fromkeys(forbidden, "mine")
    headers = {} if operation.is_public else auth_headers(app, tenant.caller_for(operation))
    before = snapshot_rows(app)
    reply = request.send(app, headers)
    assert reply.status == 422, reply.body[:600]
    refused = {
        loc[1] for loc, kind in reply.error_types.items() if kind == "extra_forbidden" and len(loc) == 2
    }
    assert refused == forbidden
    assert snapshot_rows(app) == before
