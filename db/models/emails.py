"""The queue of e-mails."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified


class EmailStatus(StrEnum):
    """The progress of an e-mail."""

    PENDING = "pending"
    RUNNING = "running"
    SENT = "sent"
    FAILED = "failed"


class QueuedEmail(Identified):
    """A row is one e-mail, until a few days after it was sent.

    `content` has the address and the text, encrypted; it is null when the e-mail was sent or has failed.
    """

    __tablename__ = "queued_emails"
    __table_args__ = (Index("ix_queued_emails_status", "status", "created_at"),)
    internal_columns: ClassVar = frozenset(("attempts", "lease_owner", "lease_expires_at"))

    kind: Mapped[str] = mapped_column(String(40))
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    status: Mapped[str] = mapped_column(String(20), default=EmailStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_expires_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    """The end of the token in it: it is not sent afterwards."""
    error: Mapped[str | None] = mapped_column(String(100))
