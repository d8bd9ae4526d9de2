"""Lease the next webhook delivery, record its outcome, and schedule retries of failed deliveries.

The leased row is the endpoint, not the delivery: each endpoint receives one message at a time (see
`studio.leases`). The next endpoint is one whose tenant and owner receive the fewest messages at the moment:
slow endpoints do not delay the messages of other tenants. `busy_until` is the end of the lease or of a
cooldown. If a process dies between sending a message and recording the outcome, the message is sent again.

Messages that clients poll are never due: they have no `next_attempt_at` (`studio.webhooks.pull`).

The retry policy is `RETRY_DELAYS` with jitter, or the longer Retry-After of an endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, literal, or_, select, update

from db.base import utc_now
from db.models.webhooks import DeliveryStatus, WebhookDelivery, WebhookEndpoint
from db.queries.statements import delete_in_batches
from db.session import Database, after_commit, current_session
from studio import leases
from studio.retry_after import MAX_RETRY_AFTER
from studio.telemetry.metrics import count_webhook_delivery
from studio.webhooks.endpoints import disable_endpoint
from studio.webhooks.messages import current_salts

LEASE_DURATION = timedelta(seconds=60)
"""Far longer than one message can take, DNS lookup included."""
RETRY_DELAYS = tuple(
    timedelta(seconds=seconds) for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
"""The backoff after each failed attempt. The delivery fails after the last one."""
JITTER = 0.1
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


@dataclass(frozen=True)
class Lease:
    """A delivery whose endpoint one dispatcher has leased, as plain values: no transaction stays open."""

    endpoint_id: UUID
    organization_id: UUID | None
    owner_id: UUID
    delivery_id: UUID
    token: str
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


def count_available(
    database: Database, limit: int, running: Sequence[Lease] = (), max_per_tenant: int = 1
) -> int:
    """Return how many endpoints `lease_next` can choose from, counted up to `limit`."""
    is_allowed = _count_related(running) < max_per_tenant
    # unscoped: the dispatcher sends the messages of every tenant
    return leases.count_available(database, select(WebhookEndpoint.id).where(_available(), is_allowed), limit)


def lease_next(
    database: Database, token: str, running: Sequence[Lease] = (), max_per_tenant: int = 1
) -> Lease | None:
    """Lease an endpoint and return its first due delivery, or None.

    The endpoint with the fewest running leases of the same tenant or owner comes first, among equals the one
    that has waited longest. Instead of a lease, due deliveries fail if the endpoint is disabled, or if the
    processes that sent them died at every attempt.

    Args:
        database: The database of the queue.
        token: The token of the lease.
        running: The leases of this process for which a message is being sent.
        max_per_tenant: How many of them may belong to one tenant or to one owner of endpoints.
    """
    related = _count_related(running)
    with database.transaction(write=True) as writing:
        # unscoped: the dispatcher sends the messages of every tenant
        query = select(WebhookEndpoint).where(_available())  # unscoped: see above
        query = query.where(related < max_per_tenant)
        query = query.order_by(related, WebhookEndpoint.served_at, WebhookEndpoint.id)
        endpoint = leases.lock_next(query, WebhookEndpoint, key_share=True)
        if endpoint is None:
            return None
        due_here = and_(WebhookDelivery.endpoint_id == endpoint.id, _due())
        if not endpoint.is_enabled:
            failed = _failed_values("endpoint_disabled")
            writing.execute(update(WebhookDelivery).where(due_here).values(failed))
            return None
        due = select(WebhookDelivery).where(due_here)
        delivery = writing.scalar(due.order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id).limit(1))
        if delivery is None:
            # Another dispatcher has sent it and released the endpoint since this transaction started.
            return None
        if delivery.tries > len(RETRY_DELAYS):
            _mark_failed(delivery, "interrupted")
            return None
        delivery.attempts += 1
        delivery.tries += 1
        delivery.last_attempt_at = utc_now()
        _set_columns(endpoint, claimed_by=token, busy_until=utc_now() + LEASE_DURATION, served_at=utc_now())
        return Lease(
            endpoint_id=endpoint.id,
            organization_id=endpoint.organization_id,
            owner_id=endpoint.owner_id,
            delivery_id=delivery.id,
            token=token,
            url=endpoint.url or "",
            salts=current_salts(endpoint),
            message_id=delivery.message_id,
            payload=dict(delivery.payload),
        )


class RecordResult(StrEnum):
    """What happened when an outcome was recorded."""

    DONE = "done"
    DISABLED = "disabled"
    """Recorded, and the endpoint is disabled now."""
    LOST = "lost"
    """Not recorded: the endpoint was deleted, or another dispatcher has taken it over."""


def record_outcome(database: Database, lease: Lease, outcome: Outcome) -> RecordResult:
    """Record the outcome of an attempt and schedule the next one, if the endpoint is still leased."""
    owned_by = (WebhookEndpoint.id == lease.endpoint_id, WebhookEndpoint.claimed_by == lease.token)
    with database.transaction(write=True) as writing:
        endpoint = leases.lock_leased(WebhookEndpoint, owned_by, key_share=True)
        if endpoint is None:
            return RecordResult.LOST
        was_enabled = endpoint.is_enabled
        _set_columns(endpoint, claimed_by=None, busy_until=_cooldown_until(endpoint, outcome))
        sent = select(WebhookDelivery).where(WebhookDelivery.id == lease.delivery_id)
        delivery = writing.scalar(sent.where(WebhookDelivery.status == DeliveryStatus.PENDING))
        if delivery is None:
            return RecordResult.LOST
        delivery.last_status_code, delivery.last_error = outcome.status_code, outcome.error
        if outcome.is_delivered:
            _record_success(endpoint, delivery)
        else:
            _record_failure(endpoint, delivery, outcome)
        label = "retried" if delivery.status == DeliveryStatus.PENDING else delivery.status
        after_commit(partial(count_webhook_delivery, label))
        return RecordResult.DISABLED if was_enabled and not endpoint.is_enabled else RecordResult.DONE


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


def _available() -> ColumnElement[bool]:
    free = or_(WebhookEndpoint.busy_until.is_(None), WebhookEndpoint.busy_until <= utc_now())
    return and_(free, WebhookEndpoint.id.in_(select(WebhookDelivery.endpoint_id).where(_due())))


def _count_related(running: Sequence[Lease]) -> ColumnElement[int]:
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


def _set_columns(endpoint: WebhookEndpoint, **values: Any) -> None:
    """Set internal columns without a new `updated_at`: clients must not see a new ETag."""
    current_session().execute(
        update(WebhookEndpoint)  # unscoped: a locked row
        .where(WebhookEndpoint.id == endpoint.id)
        .values(**values, updated_at=WebhookEndpoint.updated_at)
        .execution_options(synchronize_session=False)
    )


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
    elif delivery.tries > len(RETRY_DELAYS):
        _mark_failed(delivery, outcome.error)
        if endpoint.is_enabled and now - endpoint.failing_since >= DISABLE_AFTER:
            disable_endpoint(endpoint, "failing")
    else:
        jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
        backoff = RETRY_DELAYS[max(delivery.tries, 1) - 1] * jitter
        retry_after = min(outcome.retry_after or timedelta(0), MAX_RETRY_AFTER)
        delivery.next_attempt_at = now + max(backoff, retry_after)


def _mark_failed(delivery: WebhookDelivery, error: str | None) -> None:
    for name, value in _failed_values(error).items():
        setattr(delivery, name, value)


def _failed_values(error: str | None) -> dict[str, Any]:
    return {"status": DeliveryStatus.FAILED, "last_error": error, "next_attempt_at": None}
