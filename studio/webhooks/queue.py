"""The queue of webhook messages: what is special about its rows, and the outcome of a delivery.

The leased row is the endpoint, not the message: each endpoint receives one message at a time. The next
endpoint is one whose tenant and owner receive the fewest messages at the moment: slow endpoints do not delay
the messages of other tenants. If a process dies between sending a message and recording the outcome, the
message is sent again.

Messages that clients poll are never due: they have no `next_attempt_at` (`studio.webhooks.pull`).

The retry policy is `retries.WEBHOOK_MESSAGES`, or the longer Retry-After of an endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, literal, or_, select, update

from db.base import utc_now
from db.models.webhooks import DeliveryStatus, WebhookDelivery, WebhookEndpoint
from db.queries.statements import delete_in_batches
from db.session import Database, after_commit, current_session
from studio.infrastructure.retry_after import MAX_RETRY_AFTER
from studio.infrastructure.telemetry.metrics import count_webhook_delivery
from studio.queue.retries import WEBHOOK_MESSAGES
from studio.queue.row_queue import Lease, RowQueue, lock_next, select_in_turn
from studio.webhooks.endpoints import disable_endpoint
from studio.webhooks.messages import current_salts

DISABLE_AFTER = timedelta(days=5)
MIN_COOLDOWN = timedelta(seconds=5)
"""The shortest time without messages for an endpoint that is overloaded or unreachable."""
MIN_TIMEOUT_COOLDOWN = timedelta(seconds=60)
"""The shortest cooldown after a timeout, which has kept a thread of the dispatcher busy for 15 seconds."""
SLOW_AFTER = timedelta(seconds=3)
"""After an attempt that took longer, the cooldown lasts at least as long as the attempt."""
MAX_COOLDOWN = timedelta(hours=1)
OVERLOADED_STATUSES = frozenset({429, 502, 503, 504})
RETENTION = timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class MessageLease(Lease):
    """A message whose endpoint one dispatcher has leased."""

    organization_id: UUID | None
    owner_id: UUID
    delivery_id: UUID
    url: str
    salts: tuple[str, ...]
    message_id: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The result of an attempt: the status of the response, and an error unless it was delivered."""

    status_code: int | None = None
    error: str | None = None
    retry_after: timedelta | None = None
    duration: timedelta = timedelta(0)

    @property
    def is_delivered(self) -> bool:
        """Whether the endpoint accepted the message."""
        return self.error is None


def is_allowed(running: Sequence[MessageLease], max_per_tenant: int) -> ColumnElement[bool]:
    """Return the condition of endpoints that can be leased beside the running leases of this process.

    Args:
        running: The leases for which a message is being sent.
        max_per_tenant: How many of them may belong to one tenant or to one owner of endpoints.
    """
    return and_(MESSAGES.available(), _count_related(running) < max_per_tenant)


def choose_next(running: Sequence[MessageLease], max_per_tenant: int) -> Callable[[], WebhookEndpoint | None]:
    """Return a function that chooses and locks the next endpoint.

    The endpoint with the fewest running leases of the same tenant or owner comes first, among equals one of
    the tenant that has waited longest. For the arguments, see `is_allowed`.
    """

    def choose() -> WebhookEndpoint | None:
        query = select_in_turn(
            WebhookEndpoint,
            is_allowed(running, max_per_tenant),
            WebhookEndpoint.leased_at.asc(),
            WebhookEndpoint.id.asc(),
            before_turn=(_count_related(running),),
        )
        return lock_next(query, WebhookEndpoint, key_share=True)

    return choose


def _take(endpoint: WebhookEndpoint, token: str) -> MessageLease | None:
    """Return the first due message of an endpoint.

    Returns None if the endpoint is disabled or the processes that sent its message died at every attempt:
    then its due messages, or this one, have failed. Or if another dispatcher has sent it meanwhile.
    """
    session = current_session()
    due_here = and_(WebhookDelivery.endpoint_id == endpoint.id, _due())
    if not endpoint.is_enabled:
        failed = _failed_values("endpoint_disabled")
        session.execute(update(WebhookDelivery).where(due_here).values(failed))
        return None
    due = select(WebhookDelivery).where(due_here)
    delivery = session.scalar(due.order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id).limit(1))
    if delivery is None:
        return None
    if delivery.tries >= WEBHOOK_MESSAGES.max_attempts:
        _mark_failed(delivery, "interrupted")
        return None
    delivery.attempts += 1
    delivery.tries += 1
    delivery.last_attempt_at = utc_now()
    return MessageLease(
        row_id=endpoint.id,
        token=token,
        organization_id=endpoint.organization_id,
        owner_id=endpoint.owner_id,
        delivery_id=delivery.id,
        url=endpoint.url or "",
        salts=current_salts(endpoint),
        message_id=delivery.message_id,
        payload=dict(delivery.payload),
    )


def record_outcome(lease: MessageLease, outcome: Outcome) -> bool:
    """Record the outcome of an attempt and schedule the next one; return whether it disabled the endpoint.

    Raises:
        LeaseLost: The endpoint was deleted, or another dispatcher has taken it over.
    """
    endpoint = MESSAGES.lock(lease)
    was_enabled = endpoint.is_enabled
    endpoint.lease_owner, endpoint.lease_expires_at = None, _cooldown_until(endpoint, outcome)
    sent = select(WebhookDelivery).where(WebhookDelivery.id == lease.delivery_id)
    delivery = current_session().scalar(sent.where(WebhookDelivery.status == DeliveryStatus.PENDING))
    if delivery is None:
        # It was deleted or has ended meanwhile.
        return False
    delivery.last_status_code, delivery.last_error = outcome.status_code, outcome.error
    if outcome.is_delivered:
        _record_success(endpoint, delivery)
    else:
        _record_failure(endpoint, delivery, outcome)
    label = "retried" if delivery.status == DeliveryStatus.PENDING else delivery.status
    after_commit(partial(count_webhook_delivery, label))
    return was_enabled and not endpoint.is_enabled


def delete_old_deliveries(database: Database) -> int:
    """Delete deliveries older than 30 days and expired previous secrets; return the number of deliveries."""
    now = utc_now()
    # unscoped: secrets of every tenant expire
    expired = update(WebhookEndpoint).where(  # unscoped: see above
        WebhookEndpoint.previous_secret_expires_at <= now
    )
    with database.transaction(write=True) as writing:
        writing.execute(expired.values(previous_secret_salt=None, previous_secret_expires_at=None))
    return delete_in_batches(database, [WebhookDelivery.id], WebhookDelivery.created_at < now - RETENTION)


def _due() -> ColumnElement[bool]:
    pending = WebhookDelivery.status == DeliveryStatus.PENDING
    return and_(pending, WebhookDelivery.next_attempt_at <= utc_now())


def _has_due_message() -> ColumnElement[bool]:
    return WebhookEndpoint.id.in_(select(WebhookDelivery.endpoint_id).where(_due()))


def _count_related(running: Sequence[MessageLease]) -> ColumnElement[int]:
    """Return how many of these leases belong to the endpoint's tenant or owner, as an expression of SQL.

    Owners count too, because one account can own many organizations.
    """
    total: ColumnElement[int] = literal(0)
    for lease in running:
        is_related = WebhookEndpoint.owner_id == lease.owner_id
        if lease.organization_id is not None:
            is_related = or_(is_related, WebhookEndpoint.organization_id == lease.organization_id)
        total += case((is_related, 1), else_=0)
    return total


def _cooldown_until(endpoint: WebhookEndpoint, outcome: Outcome) -> datetime | None:
    """Return until when an overloaded, unreachable or slow endpoint receives no message, or None.

    The cooldown grows with the time that the endpoint has been failing: by a quarter of it or, after a
    timeout, by all of it, so that it doubles. Otherwise endpoints that never respond would keep all threads
    of the dispatcher busy.
    """
    now = utc_now()
    failing_for = now - (endpoint.failing_since or now)
    cooldown = outcome.duration if outcome.duration > SLOW_AFTER else timedelta(0)
    if outcome.error == "timeout":
        cooldown = max(MIN_TIMEOUT_COOLDOWN, failing_for)
    elif outcome.status_code in OVERLOADED_STATUSES or outcome.error == "connection_failed":
        cooldown = max(MIN_COOLDOWN, failing_for / 4, outcome.retry_after or MIN_COOLDOWN, cooldown)
    return now + min(cooldown, MAX_COOLDOWN) if cooldown else None


def _record_success(endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> None:
    delivery.status, delivery.delivered_at = DeliveryStatus.DELIVERED, utc_now()
    delivery.next_attempt_at = None
    if endpoint.failing_since is not None:
        endpoint.failing_since = None


def _record_failure(endpoint: WebhookEndpoint, delivery: WebhookDelivery, outcome: Outcome) -> None:
    now = utc_now()
    endpoint.failing_since = endpoint.failing_since or now
    if outcome.error == "gone":
        _mark_failed(delivery, "gone")
        if endpoint.is_enabled:
            disable_endpoint(endpoint, "gone")
    elif delivery.tries >= WEBHOOK_MESSAGES.max_attempts:
        _mark_failed(delivery, outcome.error)
        if endpoint.is_enabled and now - endpoint.failing_since >= DISABLE_AFTER:
            disable_endpoint(endpoint, "failing")
    else:
        retry_after = min(outcome.retry_after or timedelta(0), MAX_RETRY_AFTER)
        delivery.next_attempt_at = now + WEBHOOK_MESSAGES.delay_after(delivery.tries, retry_after)


def _mark_failed(delivery: WebhookDelivery, error: str | None) -> None:
    for name, value in _failed_values(error).items():
        setattr(delivery, name, value)


def _failed_values(error: str | None) -> dict[str, Any]:
    return {"status": DeliveryStatus.FAILED, "last_error": error, "next_attempt_at": None}


MESSAGES = RowQueue(
    name="the message of endpoint",
    model=WebhookEndpoint,
    take=_take,
    end_failed=lambda _endpoint, _error: None,
    condition=_has_due_message,
    retries=WEBHOOK_MESSAGES,
    status=None,
    # Of the message, not of the endpoint.
    attempts=None,
    key_share=True,
    writes_files=False,
)
