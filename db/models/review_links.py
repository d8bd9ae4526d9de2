"""Review links, with which guests review a shooting without an account."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified


class ReviewLink(Identified):
    """A row is one link that lets guests review one shooting.

    It ends with the membership that its creator needed to make it. `membership_id` is null where none was
    needed: for a personal shooting, and for a superuser. It also ends with the API key that made it;
    `api_key_id` is null if there was none, and for links that release 0.2.0 made.
    """

    __tablename__ = "review_links"
    __table_args__ = (Index("ix_review_links_shooting", "shooting_id", "created_at", "id"),)

    shooting_id: Mapped[UUID] = mapped_column(ForeignKey("shootings.id", ondelete="CASCADE"))
    created_by_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    membership_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("memberships.id", ondelete="CASCADE"), index=True
    )
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
