"""The writes of webhook endpoints: update, disable, rotate the secret, send a test event, redeliver."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select, update

from db.base import utc_now
from db.errors import Conflict
from db.models.webhooks import DeliveryMode, DeliveryStatus, WebhookDelivery, WebhookEndpoint
from db.session import after_commit, current_session
from studio.infrastructure.pubsub import WEBHOOKS
from studio.webhooks.outbox import TEST_EVENT, due_now, enqueue_test_event
from studio.webhooks.pull import WrongDeliveryMode
from studio.webhooks.signing import generate_salt

MAX_ENDPOINTS = 20
MAX_PENDING_TESTS = 50
MAX_REDELIVERED = 1_000
SECRET_OVERLAP = timedelta(hours=24)


class TooManyEndpoints(Conflict):
    """The tenant has the maximum number of endpoints. Every event is stored once for each of them."""

    code = "too_many_endpoints"
    default_detail = f"{MAX_ENDPOINTS} webhook endpoints exist, which is the maximum: delete one first"


class EndpointDisabled(Conflict):
    """A disabled endpoint receives no messages."""

    code = "endpoint_disabled"
    default_detail = "The webhook endpoint is disabled: enable it with `is_enabled` first"


class TooManyPendingTests(Conflict):
    """The maximum number of test events of the endpoint is pending."""

    code = "queue_full"
    default_detail = f"{MAX_PENDING_TESTS} test events of the endpoint are pending: wait until they are sent"


def require_capacity(organization_id: UUID | None, owner_id: UUID) -> None:
    """Check that the tenant can have one more endpoint.

    Two requests at the same time may both pass: the limit bounds the cost of an event, it is not exact.

    Raises:
        TooManyEndpoints: The tenant has the maximum number of endpoints.
    """
    tenant = WebhookEndpoint.organization_id == organization_id
    if organization_id is None:
        tenant = WebhookEndpoint.organization_id.is_(None) & (WebhookEndpoint.owner_id == owner_id)
    query = select(func.count()).select_from(WebhookEndpoint).where(tenant)  # unscoped: counts one tenant's
    if (current_session().scalar(query) or 0) >= MAX_ENDPOINTS:
        raise TooManyEndpoints(limit=MAX_ENDPOINTS)


def update_webhook_endpoint(endpoint: WebhookEndpoint, changes: Mapping[str, Any]) -> None:
    """Set the fields of a request body on a new or locked endpoint.

    Raises:
        WrongDeliveryMode: The body has a URL, and the endpoint has none because clients poll its messages.
    """
    require_url_allowed(endpoint, changes)
    for name, value in changes.items():
        if name != "is_enabled":
            setattr(endpoint, name, value)
    if changes.get("is_enabled") is False and endpoint.is_enabled is not False:
        disable_endpoint(endpoint, "manual")
    if changes.get("is_enabled") is True and not endpoint.is_enabled:
        endpoint.is_enabled = True
        endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None
    _end_cooldown(endpoint)


def require_url_allowed(endpoint: WebhookEndpoint, changes: Mapping[str, Any]) -> None:
    """Check that a request body has no URL for an endpoint whose messages clients poll.

    Raises:
        WrongDeliveryMode: It has one.
    """
    if "url" in changes and endpoint.delivery == DeliveryMode.PULL:
        detail = "The endpoint has `delivery` `pull` and therefore no URL: create another endpoint"
        raise WrongDeliveryMode(detail, pointer="/url")


def disable_endpoint(endpoint: WebhookEndpoint, reason: str) -> None:
    """Stop deliveries. Pending ones fail when they are due, unless the endpoint is enabled before."""
    endpoint.is_enabled = False
    endpoint.disabled_at, endpoint.disabled_reason = utc_now(), reason


def rotate_webhook_secret(endpoint: WebhookEndpoint) -> None:
    """Give a locked endpoint a new secret. The old one signs messages too for 24 hours."""
    endpoint.previous_secret_salt = endpoint.secret_salt
    endpoint.previous_secret_expires_at = utc_now() + SECRET_OVERLAP
    endpoint.secret_salt = generate_salt()


def test_webhook_endpoint(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Queue a test event.

    Raises:
        EndpointDisabled: The endpoint is disabled.
        TooManyPendingTests: `MAX_PENDING_TESTS` test events of the endpoint are pending.
    """
    _require_enabled(endpoint)
    pending = _select_delivery_ids(
        endpoint, WebhookDelivery.event_type == TEST_EVENT, WebhookDelivery.status == DeliveryStatus.PENDING
    )
    if len(current_session().scalars(pending.limit(MAX_PENDING_TESTS)).all()) >= MAX_PENDING_TESTS:
        raise TooManyPendingTests(limit=MAX_PENDING_TESTS)
    return enqueue_test_event(endpoint)


def redeliver_webhook(endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> None:
    """Queue a delivery of a locked endpoint again, due at once.

    Raises:
        EndpointDisabled: The endpoint is disabled.
    """
    _require_enabled(endpoint)
    for name, value in _REQUEUED.items():
        setattr(delivery, name, value)
    delivery.next_attempt_at = due_now(endpoint.delivery)
    current_session().flush()
    after_commit(WEBHOOKS.notify)


def redeliver_webhooks(
    endpoint: WebhookEndpoint, since: datetime, until: datetime | None, only_failed: bool
) -> tuple[int, bool]:
    """Queue the deliveries of a period again, except those that are pending.

    Args:
        endpoint: The locked endpoint.
        since: The start of the period in which the deliveries were created.
        until: The end of the period, exclusive.
        only_failed: Skip the deliveries that succeeded.

    Returns:
        The number of queued deliveries, at most `MAX_REDELIVERED`, and whether these were all.

    Raises:
        EndpointDisabled: The endpoint is disabled.
    """
    _require_enabled(endpoint)
    conditions = [WebhookDelivery.created_at >= since, WebhookDelivery.status != DeliveryStatus.PENDING]
    if until is not None:
        conditions.append(WebhookDelivery.created_at < until)
    if only_failed:
        conditions.append(WebhookDelivery.status == DeliveryStatus.FAILED)
    query = _select_delivery_ids(endpoint, *conditions)
    query = query.order_by(WebhookDelivery.created_at, WebhookDelivery.id).limit(MAX_REDELIVERED + 1)
    ids = current_session().scalars(query).all()
    redelivered = ids[:MAX_REDELIVERED]
    requeue = update(WebhookDelivery).where(WebhookDelivery.id.in_(redelivered))
    current_session().execute(requeue.values(**_REQUEUED, next_attempt_at=due_now(endpoint.delivery)))
    after_commit(WEBHOOKS.notify)
    return len(redelivered), len(ids) == len(redelivered)


_REQUEUED: dict[str, Any] = {"status": DeliveryStatus.PENDING, "tries": 0, "delivered_at": None}


def _select_delivery_ids(endpoint: WebhookEndpoint, *conditions: ColumnElement[bool]) -> Select[UUID]:
    return select(WebhookDelivery.id).where(WebhookDelivery.endpoint_id == endpoint.id, *conditions)


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    if not endpoint.is_enabled:
        raise EndpointDisabled()
    _end_cooldown(endpoint)


def _end_cooldown(endpoint: WebhookEndpoint) -> None:
    """End the cooldown: the client has changed the endpoint or requests a delivery. A lease stays."""
    if endpoint.lease_owner is None and endpoint.lease_expires_at is not None:
        endpoint.lease_expires_at = None
