"""Requests with an `Idempotency-Key`, and the stored responses that a repeated request gets."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified

NO_ORGANIZATION_ID = UUID(int=0)
"""Stands for "no organization". NULLs are distinct, so a null would never be unique."""


class IdempotencyKey(Identified):
    """A row is one key of a user, organization and operation; `status` is null while the request runs.

    Key and request are stored as hashes, because they come from clients and may hold personal data.
    `organization_id` is no foreign key: it is what the request named, even if it does not exist, or
    `NO_ORGANIZATION_ID`.
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
    """The token of the request that holds the idempotency lock; a request that takes over writes its own."""
    lease_expires_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    scope_id: Mapped[UUID | None]
    """The organization or user whose permission check the request passed, None before that."""
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Encrypted with the server's secret."""
