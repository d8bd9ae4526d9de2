"""Copies of the personal data of users. A pending copy is a queued job, as exports are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified
from db.models.exports import ExportStatus

IS_OPEN = text("status IN ('pending', 'running')")


class AccountExport(Identified):
    """A row is one requested copy of a user's data, in an archive that only the user can download.

    It belongs to an account and to no tenant, and its contents are read when the archive is written, so it is
    no `Export`. Workers lease the oldest pending row, and running rows whose lease has expired.
    """

    __tablename__ = "account_exports"
    internal_columns: ClassVar = frozenset(("attempts", "lease_owner", "lease_expires_at"))
    __table_args__ = (
        Index("ix_account_exports_user", "user_id", "created_at", "id"),
        Index("ix_account_exports_queue", "status", "created_at", "id"),
        Index("uq_account_exports_open", "user_id", unique=True, postgresql_where=IS_OPEN),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(String(20), default=ExportStatus.PENDING)
    progress: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_expires_at: Mapped[datetime | None]
    file_size: Mapped[int | None] = mapped_column(BigInteger)
    content_hash: Mapped[str | None] = mapped_column(String(64))
    completed_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
