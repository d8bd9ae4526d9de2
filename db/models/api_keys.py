"""API keys of organizations, and what they use of the contract."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified


class ApiKey(Identified):
    """A row is one API key; it acts with its creator's membership, and the secret is stored as a hash only.

    It is deleted with the membership. An expired key stays in the list until a client deletes it.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "created_by_id"],
            ["memberships.organization_id", "memberships.user_id"],
            ondelete="CASCADE",
        ),
        Index("ix_api_keys_membership", "organization_id", "created_by_id"),
    )

    internal_columns: ClassVar = frozenset({"next_expiry_notice_at", "deprecated_use_notified_at"})

    organization_id: Mapped[UUID]
    created_by_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(String(120))
    scopes: Mapped[list[Any]]
    secret_hash: Mapped[str] = mapped_column(String(64))
    last_four: Mapped[str] = mapped_column(String(4))
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    next_expiry_notice_at: Mapped[datetime | None] = mapped_column(index=True)
    """The time of the next event `api_key.expiring`, or null if none will follow."""
    deprecated_use_notified_at: Mapped[datetime | None]
    """The time of the last event `api_key.deprecated_use`."""


class ApiUsage(Identified):
    """A row is how often an API key used a part of the contract on one day, in UTC.

    `updated_at` is the time of the last use. The server counts; what `kind` and `name` are, and the rest of
    what the contract says about the part, is in `handlers/contract/used_parts.py`.
    """

    __tablename__ = "api_usage"
    __table_args__ = (
        UniqueConstraint("api_key_id", "day", "operation_id", "kind", "name", name="uq_api_usage_part"),
        Index("ix_api_usage_organization", "organization_id", "created_at", "id"),
        Index("ix_api_usage_created", "created_at", "id"),
        Index(
            "ix_api_usage_deprecated",
            "organization_id",
            "created_at",
            "id",
            postgresql_where=text("is_deprecated"),
        ),
    )

    organization_id: Mapped[UUID]
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    day: Mapped[date]
    operation_id: Mapped[str] = mapped_column(String(80))
    kind: Mapped[str] = mapped_column(String(10))
    name: Mapped[str] = mapped_column(String(200))
    is_deprecated: Mapped[bool] = mapped_column(default=False)
    sunset_at: Mapped[datetime | None]
    replacement: Mapped[str | None] = mapped_column(String(500))
    calls: Mapped[int] = mapped_column(BigInteger)
