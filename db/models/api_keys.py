"""API keys of organizations."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, String
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
