"""What may be done with an endpoint: change, disable, rotate its secret, test it, send again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from db.base import utc_now
from db.errors import Conflict
from db.models.webhooks import DeliveryStatus, WebhookDelivery, WebhookEndpoint
from db.session import after_commit, current_session
from studio.pubsub import WEBHOOKS
from studio.webhooks.outbox import TEST_EVENT, enqueue_test_event
from studio.webhooks.signing import generate_salt

MAX_ENDPOINTS = 20
MAX_PENDING_TESTS = 50
MAX_REDELIVERED = 1_000
SECRET_OVERLAP = timedelta(hours=24)


class TooManyEndpoints(Conflict):
    """The scope has as many endpoints as it can: every event is written down once for each."""

    code = "too_many_endpoints"
    default_detail = f"A scope has at most {MAX_ENDPOINTS} webhook endpoints"


class EndpointDisabled(Conflict):
    """Something was to be sent to an endpoint that gets nothing."""

    code = "endpoint_disabled"
    default_detail = "The webhook endpoint is disabled"


class TooManyPendingTests(Conflict):
    """So many test events wait that another one would tell nothing new."""

    code = "queue_full"
    default_detail = f"{MAX_PENDING_TESTS} test events wait already"


def require_capacity(organization_id: UUID | None, owner_id: UUID) -> None:
    """TooManyEndpoints when the scope is full.

    Two callers at the same moment may both find the last place free; the number is a bound, not a promise.
    """
    scope = WebhookEndpoint.organization_id == organization_id
    if organization_id is None:
        scope = WebhookEndpoint.organization_id.is_(None) & (WebhookEndpoint.owner_id == owner_id)
    count = select(func.count()).select_from(WebhookEndpoint).where(scope)  # unscoped: a number of one scope
    if (current_session().scalar(count) or 0) >= MAX_ENDPOINTS:
        raise TooManyEndpoints()


def update_webhook_endpoint(endpoint: WebhookEndpoint, changes: Mapping[str, Any]) -> None:
    """Set what a body names on a new or locked endpoint."""
    for name, value in changes.items():
        if name != "is_enabled":
            setattr(endpoint, name, value)
    if changes.get("is_enabled") is False and endpoint.is_enabled is not False:
        disable_endpoint(endpoint, "manual")
    if changes.get("is_enabled") is True and not endpoint.is_enabled:
        endpoint.is_enabled = True
        endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None
    _end_cooldown(endpoint)


def disable_endpoint(endpoint: WebhookEndpoint, reason: str) -> None:
    """Stop deliveries. What waits ends as failed when it comes due, unless the endpoint is enabled before."""
    endpoint.is_enabled = False
    endpoint.disabled_at, endpoint.disabled_reason = utc_now(), reason


def rotate_webhook_secret(endpoint: WebhookEndpoint) -> None:
    """Give a locked endpoint a new secret; the one before signs too for 24 hours."""
    endpoint.previous_secret_salt = endpoint.secret_salt
    endpoint.previous_secret_expires_at = utc_now() + SECRET_OVERLAP
    endpoint.secret_salt = generate_salt()


def test_webhook_endpoint(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Queue a test event; EndpointDisabled, or TestsWaiting when there are many."""
    _require_enabled(endpoint)
    waiting = _select_deliveries(endpoint, WebhookDelivery.event_type == TEST_EVENT).where(
        WebhookDelivery.status == DeliveryStatus.PENDING
    )
    if (
        len(
            current_session()
            .scalars(waiting.with_only_columns(WebhookDelivery.id).limit(MAX_PENDING_TESTS))
            .all()
        )
        >= MAX_PENDING_TESTS
    ):
        raise TooManyPendingTests()
    return enqueue_test_event(endpoint)


def redeliver_webhook(endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> None:
    """Queue a message of a locked endpoint again, due at once; EndpointDisabled."""
    _require_enabled(endpoint)
    for name, value in _REQUEUED.items():
        setattr(delivery, name, value)
    delivery.next_attempt_at = utc_now()
    current_session().flush()
    after_commit(WEBHOOKS.notify)


def redeliver_webhooks(
    endpoint: WebhookEndpoint, since: datetime, until: datetime | None, only_failed: bool
) -> tuple[int, bool]:
    """Queue again what was created from `since` to before `until` and does not wait already.

    How many messages, at most 1,000, and whether these were all. EndpointDisabled.
    """
    _require_enabled(endpoint)
    wanted = [WebhookDelivery.created_at >= since, WebhookDelivery.status != DeliveryStatus.PENDING]
    if until is not None:
        wanted.append(WebhookDelivery.created_at < until)
    if only_failed:
        wanted.append(WebhookDelivery.status == DeliveryStatus.FAILED)
    found = _select_deliveries(endpoint, *wanted).with_only_columns(WebhookDelivery.id)
    found = found.order_by(WebhookDelivery.created_at, WebhookDelivery.id).limit(MAX_REDELIVERED + 1)
    ids = current_session().scalars(found).all()
    chosen = ids[:MAX_REDELIVERED]
    again = update(WebhookDelivery).where(WebhookDelivery.id.in_(chosen))
    current_session().execute(again.values(**_REQUEUED, next_attempt_at=utc_now()))
    after_commit(WEBHOOKS.notify)
    return len(chosen), len(ids) == len(chosen)


_REQUEUED: dict[str, Any] = {"status": DeliveryStatus.PENDING, "tries": 0, "delivered_at": None}


def _select_deliveries(endpoint: WebhookEndpoint, *conditions: Any) -> Any:
    return select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id, *conditions)


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    if not endpoint.is_enabled:
        raise EndpointDisabled()
    _end_cooldown(endpoint)


def _end_cooldown(endpoint: WebhookEndpoint) -> None:
    """Send to an endpoint again that was left alone: somebody took care of it. A claim stays what it is."""
    if endpoint.claimed_by is None and endpoint.busy_until is not None:
        endpoint.busy_until = None
