"""Requests that carried an Idempotency-Key, with the answers that a repetition gets again."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified

NO_ORGANIZATION_ID = UUID(int=0)
"""Stands for "no organization": both databases hold that NULLs differ, so a null would never be unique."""


class IdempotencyKey(Identified):
    """One key of one account, organization and operation. Without a `status` its request is still at work.

    The key and the request are kept as hashes: both come from clients and may hold what is nobody's business.
    `organization_id` is what the request named, so it refers to nothing: it may be unknown or `PERSONAL`.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        Index(
            "uq_idempotency_keys_key", "user_id", "organization_id", "operation_id", "key_hash", unique=True
        ),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    organization_id: Mapped[UUID]
    operation_id: Mapped[str] = mapped_column(String(100))
    key_hash: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str] = mapped_column(String(64))
    turn: Mapped[UUID]
    """Who is at work; a send that takes over has another one, so that the one before can keep nothing."""
    lease_expires_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    scope_id: Mapped[UUID | None]
    """The organization or account on whose rows the request was allowed to work, None before it was."""
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Unreadable without the server's secret."""
