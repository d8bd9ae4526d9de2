"""Messages of the Compute API that were taken, so that one that is sent again has no second effect."""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified


class TaskCallback(Identified):
    """One message, by the sender's id for it; kept for a day."""

    __tablename__ = "task_callbacks"
    __table_args__ = (Index("ix_task_callbacks_age", "created_at"),)

    message_id: Mapped[str] = mapped_column(String(200), unique=True)
