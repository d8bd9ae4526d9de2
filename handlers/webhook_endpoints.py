"""Webhook endpoints and the log of their deliveries."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.caller import current_caller
from db.errors import NotFound
from db.fast_path.insert import insert_row
from db.models.webhooks import WebhookDelivery, WebhookEndpoint
from db.session import current_session
from db.tenancy import get_visible
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import get_for_update, precheck_update
from handlers.common.reads import One, Reading, Rows, VisibleRows
from handlers.common.references import resolve_ownership
from handlers.common.responses import (
    NO_STORE,
    ApiResponse,
    accepted,
    encode_json,
    no_content,
    ok,
    serialize,
    strong_etag,
)
from handlers.pipeline.prechecks import prechecks_url
from handlers.schemas.webhook_endpoints import (
    WebhookDeliverySchema,
    WebhookEndpointCreatedSchema,
    WebhookEndpointSchema,
    sign_messages,
)
from studio.webhooks import endpoints, pull
from studio.webhooks.signing import generate_salt

WEBHOOK_ENDPOINTS = ListQuery(WebhookEndpoint, WebhookEndpointSchema)
ENDPOINT_ROWS = VisibleRows(WebhookEndpoint)
DELIVERY_ROWS = Rows(WebhookDelivery, WebhookDeliverySchema)
WEBHOOK_DELIVERIES = ListQuery(
    WebhookDelivery,
    WebhookDeliverySchema,
    filters={"status": WebhookDelivery.status, "event_type": WebhookDelivery.event_type},
    parent={"endpoint_id": WebhookDelivery.endpoint_id},
)


list_webhook_endpoints = Page(WEBHOOK_ENDPOINTS, Permission.WEBHOOKS_READ, needs_permission=True)


def _precheck_create(organization_id: UUID | None = None, **_: Any) -> None:
    resolve_ownership(organization_id)
    endpoints.require_capacity(organization_id, current_caller().user_id)


@requires(Permission.WEBHOOKS_MANAGE)
@prechecks_url(_precheck_create)
def create_webhook_endpoint(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a webhook endpoint; the response contains its secret."""
    endpoint = WebhookEndpoint(
        **resolve_ownership(organization_id), is_enabled=True, secret_salt=generate_salt()
    )
    endpoints.require_capacity(endpoint.organization_id, endpoint.owner_id)
    endpoints.update_webhook_endpoint(endpoint, body)
    insert_row(endpoint)
    # The ETag is that of later GET responses, which do not contain the secret.
    etag = strong_etag(encode_json(serialize(endpoint, WebhookEndpointSchema)))
    headers = {"Location": _path(endpoint), "ETag": etag, **NO_STORE}
    return ApiResponse(201, serialize(endpoint, WebhookEndpointCreatedSchema), headers)


get_webhook_endpoint = One(WebhookEndpoint, WebhookEndpointSchema, Permission.WEBHOOKS_READ)


_require_unchanged = precheck_update(WebhookEndpoint, "endpoint_id", WebhookEndpointSchema)


def _precheck_update(endpoint_id: UUID, body: dict[str, Any]) -> None:
    _require_unchanged(endpoint_id=endpoint_id)
    endpoints.require_url_allowed(get_visible(WebhookEndpoint, endpoint_id), body)


@requires(Permission.WEBHOOKS_MANAGE)
@prechecks_url(_precheck_update)
def update_webhook_endpoint(endpoint_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a webhook endpoint."""
    endpoint = get_for_update(WebhookEndpoint, endpoint_id, WebhookEndpointSchema)
    endpoints.update_webhook_endpoint(endpoint, body)
    current_session().flush()
    return ok(endpoint, WebhookEndpointSchema)


@requires(Permission.WEBHOOKS_MANAGE)
def delete_webhook_endpoint(endpoint_id: UUID) -> ApiResponse:
    """Delete a webhook endpoint with its deliveries."""
    current_session().delete(get_for_update(WebhookEndpoint, endpoint_id, WebhookEndpointSchema))
    return no_content()


@requires(Permission.WEBHOOKS_MANAGE)
def rotate_webhook_secret(endpoint_id: UUID) -> ApiResponse:
    """Create a new secret; the previous one also signs for a day."""
    endpoint = _get_locked(endpoint_id)
    endpoints.rotate_webhook_secret(endpoint)
    current_session().flush()
    return ApiResponse(200, serialize(endpoint, WebhookEndpointCreatedSchema), dict(NO_STORE))


@requires(Permission.WEBHOOKS_MANAGE)
def test_webhook_endpoint(endpoint_id: UUID) -> ApiResponse:
    """Queue a test event."""
    return _delivery_response(endpoints.test_webhook_endpoint(_get_locked(endpoint_id)))


@requires(Permission.WEBHOOKS_MANAGE)
def redeliver_webhooks(endpoint_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Queue the deliveries of a time range again."""
    endpoint = _get_locked(endpoint_id)
    count, is_complete = endpoints.redeliver_webhooks(
        endpoint, body["since"], body.get("until"), body["only_failed"]
    )
    location = f"{_path(endpoint)}/deliveries?status=pending"
    return ApiResponse(202, {"count": count, "is_complete": is_complete}, {"Location": location})


@requires(Permission.WEBHOOKS_READ)
def poll_webhook_messages(endpoint_id: UUID, limit: int) -> ApiResponse:
    """Return the oldest messages that wait at an endpoint, signed."""
    endpoint = get_visible(WebhookEndpoint, endpoint_id)
    waiting = pull.list_waiting(endpoint, limit + 1)
    body = {"data": sign_messages(endpoint, waiting[:limit]), "has_more": len(waiting) > limit}
    state = pull.WaitingMessages(endpoint.id, is_final=bool(waiting))
    return ApiResponse(200, body, dict(NO_STORE), watched=state)


@requires(Permission.WEBHOOKS_MANAGE)
def acknowledge_webhook_messages(endpoint_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Mark messages that were polled as delivered."""
    count = pull.acknowledge_webhook_messages(_get_locked(endpoint_id), body["message_ids"])
    return ApiResponse(200, {"count": count})


list_webhook_deliveries = Page(WEBHOOK_DELIVERIES, Permission.WEBHOOKS_READ, parent=WebhookEndpoint)


@requires(Permission.WEBHOOKS_READ)
def get_webhook_delivery(endpoint_id: UUID, delivery_id: UUID) -> Reading[ApiResponse]:
    """Return a delivery of a webhook endpoint."""
    yield from ENDPOINT_ROWS.get(endpoint_id)
    return (yield from DELIVERY_ROWS.ok(delivery_id, id=delivery_id, endpoint_id=endpoint_id))


@requires(Permission.WEBHOOKS_MANAGE)
def redeliver_webhook(endpoint_id: UUID, delivery_id: UUID) -> ApiResponse:
    """Queue a delivery again."""
    endpoint = _get_locked(endpoint_id)
    delivery = _get_delivery(endpoint, delivery_id)
    endpoints.redeliver_webhook(endpoint, delivery)
    return _delivery_response(delivery)


def _get_locked(endpoint_id: UUID) -> WebhookEndpoint:
    return get_visible(WebhookEndpoint, endpoint_id, for_update=True)


def _get_delivery(endpoint: WebhookEndpoint, delivery_id: UUID) -> WebhookDelivery:
    query = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id)
    delivery = current_session().scalar(query.where(WebhookDelivery.endpoint_id == endpoint.id))
    if delivery is None:
        raise NotFound(value=delivery_id)
    return delivery


def _path(endpoint: WebhookEndpoint) -> str:
    return f"/api/v1/webhook-endpoints/{endpoint.id}"


def _delivery_response(delivery: WebhookDelivery) -> ApiResponse:
    location = f"/api/v1/webhook-endpoints/{delivery.endpoint_id}/deliveries/{delivery.id}"
    return accepted(delivery, WebhookDeliverySchema, location)
