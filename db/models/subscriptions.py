"""Subscriptions with their credits, and the ledger of credit movements."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKey, Index, String, case, text
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Identified
from db.models.users import User


class PaymentStatus(StrEnum):
    """The payment of the current period."""

    PENDING = "PENDING"
    PAID = "PAID"
    FAILED = "FAILED"
    REFUNDED = "REFUNDED"


class Subscription(Identified):
    """A row is a user's plan for a period; at most one per user is active.

    Prices are integers in the minor unit of the currency (cents).
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        Index("uq_subscriptions_one_active", "user_id", unique=True, postgresql_where=text("is_active")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    service_type: Mapped[str] = mapped_column(String(20))
    tier: Mapped[str] = mapped_column(String(20))
    payment_id: Mapped[str | None] = mapped_column(String(200))
    start_date: Mapped[datetime]
    end_date: Mapped[datetime]
    grace_period_end: Mapped[datetime]
    credits_total: Mapped[int] = mapped_column(default=0)
    credits_used: Mapped[int] = mapped_column(default=0)
    credits_low_at: Mapped[datetime | None]
    """The time of the event `credits.low` in this period."""
    is_active: Mapped[bool] = mapped_column(default=True)
    payment_status: Mapped[str] = mapped_column(String(20), default=PaymentStatus.PENDING)
    base_price_minor: Mapped[int] = mapped_column(default=0)
    actual_price_minor: Mapped[int] = mapped_column(default=0)
    currency: Mapped[str] = mapped_column(String(3), default="EUR")

    user: Mapped[User] = relationship(lazy="raise")

    @hybrid_property
    def credits_remaining(self) -> int:
        """The credits that can still be used."""
        return max(0, self.credits_total - self.credits_used)

    @credits_remaining.inplace.expression
    @classmethod
    def _credits_remaining(cls) -> ColumnElement[int]:
        return case((cls.credits_used < cls.credits_total, cls.credits_total - cls.credits_used), else_=0)


class MovementKind(StrEnum):
    """The reason of a ledger entry."""

    OPENING = "opening"
    CHARGE = "charge"
    REFUND = "refund"
    RENEWAL = "renewal"
    PLAN_CHANGE = "plan_change"


class CreditMovement(Identified):
    """A row is one entry of the append-only ledger of credits.

    The amounts of a period add up to the credits used in it. `generation_id` is no foreign key because the
    ledger outlives the generations it paid for.
    """

    __tablename__ = "credit_movements"
    __table_args__ = (
        Index("ix_credit_movements_subscription", "subscription_id", "created_at", "id"),
        Index("ix_credit_movements_generation_id", "generation_id"),
    )

    subscription_id: Mapped[UUID] = mapped_column(ForeignKey("subscriptions.id", ondelete="CASCADE"))
    generation_id: Mapped[UUID | None]
    kind: Mapped[str] = mapped_column(String(20))
    amount: Mapped[int]
    credits_total: Mapped[int]
    period_start: Mapped[datetime]
