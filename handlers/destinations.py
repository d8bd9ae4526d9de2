"""Destinations: storage of customers that exports are delivered to."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.caller import current_caller
from db.models.destinations import Destination
from db.tenancy import get_visible
from handlers.common.context import current_http_client, current_settings
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import get_for_update, precheck_update
from handlers.common.reads import One
from handlers.common.references import resolve_ownership
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.pipeline.admission.slots import hold_fetch_slot
from handlers.pipeline.prechecks import Arguments, prechecks_url, runs_before
from handlers.schemas.destinations import DestinationSchema, describe_test
from studio.destinations import changes
from studio.destinations.targets import Outcome

DESTINATIONS = ListQuery(Destination, DestinationSchema)


def _find_url(body: dict[str, Any]) -> str | None:
    return next((body[kind]["url"] for kind in ("s3", "https") if "url" in body.get(kind, {})), None)


list_destinations = Page(DESTINATIONS, Permission.DESTINATIONS_MANAGE, needs_permission=True)


def _precheck_create(organization_id: UUID | None = None, **_: Any) -> None:
    resolve_ownership(organization_id)
    changes.require_capacity(organization_id, current_caller().user_id)


@requires(Permission.DESTINATIONS_MANAGE)
@prechecks_url(_precheck_create, _find_url)
def create_destination(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a destination."""
    destination = changes.create_destination(resolve_ownership(organization_id), body, current_settings())
    return created(destination, DestinationSchema, f"/api/v1/destinations/{destination.id}")


get_destination = One(Destination, DestinationSchema, Permission.DESTINATIONS_MANAGE)


@requires(Permission.DESTINATIONS_MANAGE)
@prechecks_url(precheck_update(Destination, "destination_id", DestinationSchema), _find_url)
def update_destination(destination_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a destination."""
    destination = get_for_update(Destination, destination_id, DestinationSchema)
    changes.update_destination(destination, body, current_settings())
    return ok(destination, DestinationSchema)


@requires(Permission.DESTINATIONS_MANAGE)
def delete_destination(destination_id: UUID) -> ApiResponse:
    """Delete a destination and its credentials."""
    changes.delete_destination(get_for_update(Destination, destination_id, DestinationSchema))
    return no_content()


def _load_target(destination_id: UUID) -> changes.EncryptedTarget:
    return changes.EncryptedTarget.of(get_visible(Destination, destination_id))


def _run_test(arguments: Arguments, encrypted: changes.EncryptedTarget) -> Arguments:
    settings = current_settings()
    if settings.mode == "mock":
        # A mock sends nothing: every destination accepts every file.
        accepted = Outcome(status_code=200)
        deleted = accepted if encrypted.target.kind == "s3" else None
        return {**arguments, "result": changes.TestResult(changes.TEST_KEY, accepted, deleted, 0)}
    with hold_fetch_slot("Too many destinations are being tested: wait until one of them is done"):
        return {**arguments, "result": changes.test_destination(current_http_client(), encrypted, settings)}


@requires(Permission.DESTINATIONS_MANAGE)
@runs_before(_load_target, _run_test)
def test_destination(destination_id: UUID, **prepared: Any) -> ApiResponse:
    """Return what happened when a file was written to a destination."""
    get_visible(Destination, destination_id)
    return ApiResponse(200, describe_test(prepared["result"]))
