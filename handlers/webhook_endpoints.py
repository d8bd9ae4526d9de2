"""Webhook endpoints: addresses that are told what happened, and the log of what was sent to them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.errors import NotFound
from db.inserting import insert_row
from db.models.webhooks import WebhookDelivery, WebhookEndpoint
from db.session import session
from db.tenancy import current_caller, get_owned, list_scope, require_permission_in
from handlers.answers import NO_STORE, Answer, accepted, encode_json, no_content, ok, present, strong_etag
from handlers.conditional import get_for_change, may_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.preparing import checks_target_after
from handlers.references import scope_of_new
from handlers.schemas.webhook_endpoints import (
    WebhookDeliverySchema,
    WebhookEndpointCreatedSchema,
    WebhookEndpointSchema,
)
from studio.webhooks import endpoints as studio
from studio.webhooks.signing import new_salt

WEBHOOK_ENDPOINTS = Listing(WebhookEndpoint, WebhookEndpointSchema)
WEBHOOK_DELIVERIES = Listing(
    WebhookDelivery,
    WebhookDeliverySchema,
    filters={"status": WebhookDelivery.status, "event_type": WebhookDelivery.event_type},
    within={"endpoint_id": WebhookDelivery.endpoint_id},
)


@requires(Permission.WEBHOOKS_READ)
def list_webhook_endpoints(organization_id: UUID | None = None, **asked: Any) -> Answer:
    """The endpoints of one scope."""
    require_permission_in(organization_id)
    return WEBHOOK_ENDPOINTS.page(asked, list_scope(organization_id))


def _may_create(organization_id: UUID | None = None, **_: Any) -> None:
    scope_of_new(organization_id)
    studio.require_room(organization_id, current_caller().user_id)


@requires(Permission.WEBHOOKS_MANAGE)
@checks_target_after(_may_create)
def create_webhook_endpoint(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Register an address; the answer holds its secret."""
    endpoint = WebhookEndpoint(**scope_of_new(organization_id), is_enabled=True, secret_salt=new_salt())
    studio.require_room(endpoint.organization_id, endpoint.owner_id)
    studio.change(endpoint, body)
    insert_row(endpoint)
    # The tag is that of the endpoint as it is read from now on, without the secret.
    tag = strong_etag(encode_json(present(endpoint, WebhookEndpointSchema)))
    headers = {"Location": _path(endpoint), "ETag": tag, **NO_STORE}
    return Answer(201, present(endpoint, WebhookEndpointCreatedSchema), headers)


@requires(Permission.WEBHOOKS_READ)
def get_webhook_endpoint(endpoint_id: UUID) -> Answer:
    """One endpoint."""
    return ok(get_owned(WebhookEndpoint, endpoint_id), WebhookEndpointSchema)


@requires(Permission.WEBHOOKS_MANAGE)
@checks_target_after(may_change(WebhookEndpoint, "endpoint_id", WebhookEndpointSchema))
def update_webhook_endpoint(endpoint_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names."""
    endpoint = get_for_change(WebhookEndpoint, endpoint_id, WebhookEndpointSchema)
    studio.change(endpoint, body)
    session().flush()
    return ok(endpoint, WebhookEndpointSchema)


@requires(Permission.WEBHOOKS_MANAGE)
def delete_webhook_endpoint(endpoint_id: UUID) -> Answer:
    """Remove the endpoint with its log."""
    session().delete(get_for_change(WebhookEndpoint, endpoint_id, WebhookEndpointSchema))
    return no_content()


@requires(Permission.WEBHOOKS_MANAGE)
def rotate_webhook_secret(endpoint_id: UUID) -> Answer:
    """Make a new secret; the one before signs too for a day."""
    endpoint = _locked(endpoint_id)
    studio.rotate(endpoint)
    session().flush()
    return Answer(200, present(endpoint, WebhookEndpointCreatedSchema), dict(NO_STORE))


@requires(Permission.WEBHOOKS_MANAGE)
def test_webhook_endpoint(endpoint_id: UUID) -> Answer:
    """Queue a test event."""
    return _queued(studio.send_test(_locked(endpoint_id)))


@requires(Permission.WEBHOOKS_MANAGE)
def redeliver_webhooks(endpoint_id: UUID, body: dict[str, Any]) -> Answer:
    """Queue again what was created in a range of time."""
    endpoint = _locked(endpoint_id)
    count, is_complete = studio.redeliver_range(
        endpoint, body["since"], body.get("until"), body["only_failed"]
    )
    waiting = f"{_path(endpoint)}/deliveries?status=pending"
    return Answer(202, {"count": count, "is_complete": is_complete}, {"Location": waiting})


@requires(Permission.WEBHOOKS_READ)
def list_webhook_deliveries(endpoint_id: UUID, **asked: Any) -> Answer:
    """What was sent to one endpoint, or waits."""
    asked["endpoint_id"] = get_owned(WebhookEndpoint, endpoint_id).id
    return WEBHOOK_DELIVERIES.page(asked)


@requires(Permission.WEBHOOKS_READ)
def get_webhook_delivery(endpoint_id: UUID, delivery_id: UUID) -> Answer:
    """One message to one endpoint."""
    return ok(_delivery_of(get_owned(WebhookEndpoint, endpoint_id), delivery_id), WebhookDeliverySchema)


@requires(Permission.WEBHOOKS_MANAGE)
def redeliver_webhook(endpoint_id: UUID, delivery_id: UUID) -> Answer:
    """Queue one message again."""
    endpoint = _locked(endpoint_id)
    delivery = _delivery_of(endpoint, delivery_id)
    studio.redeliver(endpoint, delivery)
    return _queued(delivery)


def _locked(endpoint_id: UUID) -> WebhookEndpoint:
    return get_owned(WebhookEndpoint, endpoint_id, for_update=True)


def _delivery_of(endpoint: WebhookEndpoint, delivery_id: UUID) -> WebhookDelivery:
    query = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id)
    delivery = session().scalar(query.where(WebhookDelivery.endpoint_id == endpoint.id))
    if delivery is None:
        raise NotFound()
    return delivery


def _path(endpoint: WebhookEndpoint) -> str:
    return f"/api/v1/webhook-endpoints/{endpoint.id}"


def _queued(delivery: WebhookDelivery) -> Answer:
    location = f"/api/v1/webhook-endpoints/{delivery.endpoint_id}/deliveries/{delivery.id}"
    return accepted(delivery, WebhookDeliverySchema, location)
