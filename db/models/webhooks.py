"""Webhook endpoints of tenants, and the transactional outbox: one delivery per event and endpoint."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified, Owned, tenant_indexes, utc_now


class DeliveryMode(StrEnum):
    """How messages reach the client."""

    PUSH = "push"
    PULL = "pull"


class WebhookEndpoint(Owned):
    """A row is a URL that receives the events of its tenant, or keeps them until the client polls (no URL).

    A dispatcher leases an endpoint to send it a message. After a failed delivery, `lease_expires_at` is the
    end of a cooldown. The endpoint with the oldest `leased_at` comes first. The columns have older names.
    """

    __tablename__ = "webhook_endpoints"
    internal_columns: ClassVar = frozenset(("lease_owner", "lease_expires_at", "leased_at"))
    __table_args__ = tenant_indexes("webhook_endpoints")

    delivery: Mapped[str] = mapped_column(String(10), default=DeliveryMode.PUSH)
    url: Mapped[str | None] = mapped_column(String(2048))
    description: Mapped[str | None] = mapped_column(String(500))
    event_types: Mapped[list[Any]]
    is_enabled: Mapped[bool] = mapped_column(default=True)
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(String(20))
    failing_since: Mapped[datetime | None]
    # Secrets are derived from the salt and the server's key, so the salt alone is no secret.
    secret_salt: Mapped[str] = mapped_column(String(64))
    previous_secret_salt: Mapped[str | None] = mapped_column(String(64))
    previous_secret_expires_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None] = mapped_column("claimed_by", String(100))
    lease_expires_at: Mapped[datetime | None] = mapped_column("busy_until")
    leased_at: Mapped[datetime] = mapped_column("served_at", default=utc_now)


class DeliveryStatus(StrEnum):
    """The status of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


IS_WAITING = text("status = 'pending' AND next_attempt_at IS NULL")
"""The condition of messages that a client polls. The order of their ids is that of the events."""


class WebhookDelivery(Identified):
    """A row is one message to one endpoint, and belongs to the endpoint's tenant.

    Lock the endpoint before changing it. `attempts` counts all attempts, `tries` those since the message was
    queued or requeued. A pending message that a client polls has no `next_attempt_at`.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_endpoint", "endpoint_id", "created_at", "id"),
        Index("ix_webhook_deliveries_due", "endpoint_id", "status", "next_attempt_at"),
        Index("ix_webhook_deliveries_waiting", "status", "next_attempt_at", "endpoint_id"),
        Index("ix_webhook_deliveries_age", "created_at"),
        Index("ix_webhook_deliveries_pull", "endpoint_id", "message_id", postgresql_where=IS_WAITING),
    )

    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    message_id: Mapped[str] = mapped_column(String(40))
    event_type: Mapped[str] = mapped_column(String(40))
    payload: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(String(20), default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    tries: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]
    last_status_code: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(String(30))
    delivered_at: Mapped[datetime | None]
