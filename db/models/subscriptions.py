"""Subscriptions: whose plan pays, and how many credits are left."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, text
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

    @property
    def credits_remaining(self) -> int:
        """How many credits can still be spent."""
        return max(0, self.credits_total - self.credits_used)
