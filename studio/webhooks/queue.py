"""Which message is sent next, and what the answer to it means.

A sender claims an endpoint, so that each gets one message at a time and a slow one holds up no other; the
claim is a lease with a token, and a sender that was given up for dead records nothing any more. No
transaction is open while a message travels. Whoever dies between sending and recording leaves it to be sent
again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from db.base import utc_now
from db.models.webhooks import DeliveryStatus, WebhookDelivery, WebhookEndpoint
from db.session import Database, after_commit, current_session
from studio.telemetry.metrics import count_webhook_delivery
from studio.webhooks.endpoints import disable_endpoint

LEASE_DURATION = timedelta(seconds=60)
"""Far longer than one message can take, look-up of the address included."""
RETRY_DELAYS = tuple(
    timedelta(seconds=seconds) for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
"""How long after a failed try the next one follows; after the last of them the message is given up."""
JITTER = 0.1
DISABLE_AFTER = timedelta(days=5)
MIN_COOLDOWN = timedelta(seconds=5)
"""How long an endpoint that is overloaded or away is left alone at least."""
MAX_COOLDOWN = timedelta(hours=1)
MAX_RETRY_AFTER = timedelta(hours=24)
OVERLOADED_STATUSES = frozenset({429, 502, 503, 504})
RETENTION = timedelta(days=30)
DELETE_BATCH_SIZE = 1_000


@dataclass(frozen=True)
class Lease:
    """A message in the hands of one sender, as plain values: no transaction stays open for it."""

    endpoint_id: UUID
    delivery_id: UUID
    token: str
    url: str
    salts: tuple[str, ...]
    message_id: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a try ended: the status that was answered, or why there was none."""

    status_code: int | None = None
    error: str | None = None
    retry_after: timedelta | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the target took the message."""
        return self.error is None


def has_available(database: Database) -> bool:
    """Whether a message can be sent now; reads only, so that idle senders keep no writer waiting."""
    with database.transaction(write=False) as reading:
        # unscoped: senders send for everybody
        return reading.scalar(select(WebhookEndpoint.id).where(_available()).limit(1)) is not None


def lease_next(database: Database, token: str) -> Lease | None:
    """The message that is due first at the endpoint that has waited longest; None when there is none.

    What may not be sent any more, because its endpoint is disabled or its senders died of it, ends here.
    """
    with database.transaction(write=True) as writing:
        waiting = select(WebhookEndpoint).where(_available())  # unscoped: senders send for everybody
        waiting = waiting.order_by(WebhookEndpoint.served_at, WebhookEndpoint.id).limit(1)
        endpoint = writing.scalar(waiting.with_for_update(skip_locked=True, key_share=True))
        if endpoint is None:
            return None
        here = and_(WebhookDelivery.endpoint_id == endpoint.id, _due())
        if not endpoint.is_enabled:
            writing.execute(update(WebhookDelivery).where(here).values(_failed_values("endpoint_disabled")))
            return None
        due = select(WebhookDelivery).where(here)
        delivery = writing.scalar(due.order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id).limit(1))
        if delivery is None:
            # Another sender has sent it since this transaction looked, and is free again already.
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
            delivery_id=delivery.id,
            token=token,
            url=endpoint.url,
            salts=_current_salts(endpoint),
            message_id=delivery.message_id,
            payload=dict(delivery.payload),
        )


class RecordResult(StrEnum):
    """What became of an outcome that was to be written down."""

    DONE = "done"
    DISABLED = "disabled"
    """Written down, and the endpoint is disabled from now on."""
    LOST = "lost"
    """Not written down: the endpoint is gone, or another sender has taken over."""


def record_outcome(database: Database, lease: Lease, outcome: Outcome) -> RecordResult:
    """Write down how a try ended and when the next one follows, if the endpoint is still ours."""
    ours = (WebhookEndpoint.id == lease.endpoint_id, WebhookEndpoint.claimed_by == lease.token)
    with database.transaction(write=True) as writing:
        found = select(WebhookEndpoint).where(*ours)  # unscoped: the endpoint that was claimed
        endpoint = writing.scalar(found.with_for_update(key_share=True))
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
        told = "retried" if delivery.status == DeliveryStatus.PENDING else delivery.status
        after_commit(partial(count_webhook_delivery, told))
        return RecordResult.DISABLED if was_enabled and not endpoint.is_enabled else RecordResult.DONE


def delete_old_deliveries(database: Database) -> int:
    """Delete what is older than 30 days, and secrets that no longer hold; returns how many messages went."""
    now, forgotten = utc_now(), 0
    over = WebhookEndpoint.previous_secret_expires_at <= now
    # unscoped: time is over for everybody
    end = update(WebhookEndpoint).where(over)  # unscoped: see above
    with database.transaction(write=True) as writing:
        writing.execute(end.values(previous_secret_salt=None, previous_secret_expires_at=None))
    while True:
        with database.transaction(write=True) as writing:
            old = (
                select(WebhookDelivery.id)
                .where(WebhookDelivery.created_at < now - RETENTION)
                .limit(DELETE_BATCH_SIZE)
            )
            ids = writing.scalars(old).all()
            writing.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(ids)))
        forgotten += len(ids)
        if len(ids) < DELETE_BATCH_SIZE:
            return forgotten


def _due() -> ColumnElement[bool]:
    pending = WebhookDelivery.status == DeliveryStatus.PENDING
    return and_(pending, WebhookDelivery.next_attempt_at <= utc_now())


def _available() -> ColumnElement[bool]:
    free = or_(WebhookEndpoint.busy_until.is_(None), WebhookEndpoint.busy_until <= utc_now())
    return and_(free, WebhookEndpoint.id.in_(select(WebhookDelivery.endpoint_id).where(_due())))


def _current_salts(endpoint: WebhookEndpoint) -> tuple[str, ...]:
    """What the message is signed with: the secret, and for a while the one before."""
    former, until = endpoint.previous_secret_salt, endpoint.previous_secret_expires_at
    still_holds = former is not None and until is not None and until > utc_now()
    return (endpoint.secret_salt, former) if former and still_holds else (endpoint.secret_salt,)


def _set_columns(endpoint: WebhookEndpoint, **values: Any) -> None:
    """Set columns that are ours alone: for the endpoint's owner, and its ETag, nothing has changed."""
    current_session().execute(
        update(WebhookEndpoint)  # unscoped: a locked row
        .where(WebhookEndpoint.id == endpoint.id)
        .values(**values, updated_at=WebhookEndpoint.updated_at)
        .execution_options(synchronize_session=False)
    )


def _cooldown_until(endpoint: WebhookEndpoint, outcome: Outcome) -> datetime | None:
    """Until when an endpoint that is overloaded or away is left alone with all of its messages.

    The longer it has been failing the longer, or those who never answer would keep the senders from others.
    """
    if outcome.status_code not in OVERLOADED_STATUSES and outcome.error not in (
        "timeout",
        "connection_failed",
    ):
        return None
    now = utc_now()
    failing_for = now - (endpoint.failing_since or now)
    return now + min(max(MIN_COOLDOWN, failing_for / 4, outcome.retry_after or MIN_COOLDOWN), MAX_COOLDOWN)


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
        pause = RETRY_DELAYS[max(delivery.tries, 1) - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
        wanted = min(outcome.retry_after or timedelta(0), MAX_RETRY_AFTER)
        delivery.next_attempt_at = now + max(pause, wanted)


def _mark_failed(delivery: WebhookDelivery, error: str | None) -> None:
    for name, value in _failed_values(error).items():
        setattr(delivery, name, value)


def _failed_values(error: str | None) -> dict[str, Any]:
    return {"status": DeliveryStatus.FAILED, "last_error": error, "next_attempt_at": None}
