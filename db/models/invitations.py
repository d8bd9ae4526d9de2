"""Invitations to an organization: open ones only, because who accepts one becomes a member instead."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, validates

from db.base import Identified
from db.models.users import email_key


class Invitation(Identified):
    """One address that may join in a role. The token that was mailed is kept as a hash."""

    __tablename__ = "invitations"
    __table_args__ = (UniqueConstraint("organization_id", "email_key"),)

    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    email: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(String(640), index=True)
    role: Mapped[str] = mapped_column(String(20))
    # Without whoever invited there is nobody whose right could be asked for.
    invited_by_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(128), unique=True)
    expires_at: Mapped[datetime]

    @validates("email")
    def _set_email_key(self, _name: str, email: str) -> str:
        self.email_key = email_key(email)
        return email
