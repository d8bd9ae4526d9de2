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
from db.session import after_commit, session
from studio.jobs.signal import WEBHOOKS
from studio.webhooks.outbox import TEST_EVENT, leave_test
from studio.webhooks.signing import new_salt

MOST_ENDPOINTS = 20
MOST_TESTS = 50
MOST_REDELIVERED = 1_000
BOTH_SECRETS = timedelta(hours=24)


class TooManyEndpoints(Conflict):
    """The scope has as many endpoints as it can: every event is written down once for each."""

    code = "too_many_endpoints"
    default_detail = f"A scope has at most {MOST_ENDPOINTS} webhook endpoints"


class EndpointDisabled(Conflict):
    """Something was to be sent to an endpoint that gets nothing."""

    code = "endpoint_disabled"
    default_detail = "The webhook endpoint is disabled"


class TestsWaiting(Conflict):
    """So many test events wait that another one would tell nothing new."""

    code = "queue_full"
    default_detail = f"{MOST_TESTS} test events wait already"


def require_room(organization_id: UUID | None, owner_id: UUID) -> None:
    """TooManyEndpoints when the scope is full.

    Two callers at the same moment may both find the last place free; the number is a bound, not a promise.
    """
    scope = WebhookEndpoint.organization_id == organization_id
    if organization_id is None:
        scope = WebhookEndpoint.organization_id.is_(None) & (WebhookEndpoint.owner_id == owner_id)
    count = select(func.count()).select_from(WebhookEndpoint).where(scope)  # unscoped: a number of one scope
    if (session().scalar(count) or 0) >= MOST_ENDPOINTS:
        raise TooManyEndpoints()


def change(endpoint: WebhookEndpoint, changes: Mapping[str, Any]) -> None:
    """Set what a body names on a new or locked endpoint."""
    for name, value in changes.items():
        if name != "is_enabled":
            setattr(endpoint, name, value)
    if changes.get("is_enabled") is False and endpoint.is_enabled is not False:
        disable(endpoint, "manual")
    if changes.get("is_enabled") is True and not endpoint.is_enabled:
        endpoint.is_enabled = True
        endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None
    _end_rest(endpoint)


def disable(endpoint: WebhookEndpoint, reason: str) -> None:
    """Stop deliveries. What waits ends as failed when it comes due, unless the endpoint is enabled before."""
    endpoint.is_enabled = False
    endpoint.disabled_at, endpoint.disabled_reason = utc_now(), reason


def rotate(endpoint: WebhookEndpoint) -> None:
    """Give a locked endpoint a new secret; the one before signs too for 24 hours."""
    endpoint.previous_secret_salt = endpoint.secret_salt
    endpoint.previous_secret_expires_at = utc_now() + BOTH_SECRETS
    endpoint.secret_salt = new_salt()


def send_test(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Queue a test event; EndpointDisabled, or TestsWaiting when there are many."""
    _require_enabled(endpoint)
    waiting = _deliveries(endpoint, WebhookDelivery.event_type == TEST_EVENT).where(
        WebhookDelivery.status == DeliveryStatus.PENDING
    )
    if (
        len(session().scalars(waiting.with_only_columns(WebhookDelivery.id).limit(MOST_TESTS)).all())
        >= MOST_TESTS
    ):
        raise TestsWaiting()
    return leave_test(endpoint)


def redeliver(endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> None:
    """Queue a message of a locked endpoint again, due at once; EndpointDisabled."""
    _require_enabled(endpoint)
    for name, value in _QUEUED_AGAIN.items():
        setattr(delivery, name, value)
    delivery.next_attempt_at = utc_now()
    session().flush()
    after_commit(WEBHOOKS.wake)


def redeliver_range(
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
    found = _deliveries(endpoint, *wanted).with_only_columns(WebhookDelivery.id)
    found = found.order_by(WebhookDelivery.created_at, WebhookDelivery.id).limit(MOST_REDELIVERED + 1)
    ids = session().scalars(found).all()
    chosen = ids[:MOST_REDELIVERED]
    again = update(WebhookDelivery).where(WebhookDelivery.id.in_(chosen))
    session().execute(again.values(**_QUEUED_AGAIN, next_attempt_at=utc_now()))
    after_commit(WEBHOOKS.wake)
    return len(chosen), len(ids) == len(chosen)


_QUEUED_AGAIN: dict[str, Any] = {"status": DeliveryStatus.PENDING, "tries": 0, "delivered_at": None}


def _deliveries(endpoint: WebhookEndpoint, *conditions: Any) -> Any:
    return select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id, *conditions)


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    if not endpoint.is_enabled:
        raise EndpointDisabled()
    _end_rest(endpoint)


def _end_rest(endpoint: WebhookEndpoint) -> None:
    """Send to an endpoint again that was left alone: somebody took care of it. A claim stays what it is."""
    if endpoint.claimed_by is None and endpoint.busy_until is not None:
        endpoint.busy_until = None
