"""Subscriptions: whose plan pays, how many credits are left, and the ledger of how they were spent."""

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
    """How far the payment of the running period is."""

    PENDING = "PENDING"
    PAID = "PAID"
    FAILED = "FAILED"
    REFUNDED = "REFUNDED"


class Subscription(Identified):
    """A user's plan for a period.

    At most one of a user is active. Prices are integers in the minor unit (cents).
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        Index(
            "uq_subscriptions_one_active",
            "user_id",
            unique=True,
            sqlite_where=text("is_active"),
            postgresql_where=text("is_active"),
        ),
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
    is_active: Mapped[bool] = mapped_column(default=True)
    payment_status: Mapped[str] = mapped_column(String(20), default=PaymentStatus.PENDING)
    base_price_minor: Mapped[int] = mapped_column(default=0)
    actual_price_minor: Mapped[int] = mapped_column(default=0)
    currency: Mapped[str] = mapped_column(String(3), default="EUR")

    user: Mapped[User] = relationship(lazy="raise")

    @hybrid_property
    def credits_remaining(self) -> int:
        """How many credits can still be spent."""
        return max(0, self.credits_total - self.credits_used)

    @credits_remaining.inplace.expression
    @classmethod
    def _credits_remaining(cls) -> ColumnElement[int]:
        return case((cls.credits_used < cls.credits_total, cls.credits_total - cls.credits_used), else_=0)


class MovementKind(StrEnum):
    """Why credits moved, or a period or plan began."""

    OPENING = "opening"
    CHARGE = "charge"
    REFUND = "refund"
    RENEWAL = "renewal"
    PLAN_CHANGE = "plan_change"


class CreditMovement(Identified):
    """One entry of the ledger; entries are added and never changed.

    The amounts of a period add up to the credits that were used in it. There is no foreign key to the
    generation: the ledger outlives what it paid for.
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
