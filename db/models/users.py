"""Accounts, the token families that their sign-ins open, and password resets.

Secrets are kept as hashes only.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from db.base import Identified, utc_now


def email_key(email: str) -> str:
    """The spelling by which two addresses are the same: letter case and surrounding blanks do not count."""
    return email.strip().casefold()


class User(Identified):
    """An account.

    `email` keeps the spelling that its owner chose; `email_key` is what is unique and looked up.
    """

    __tablename__ = "users"

    email: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(String(640), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(255))
    full_name: Mapped[str | None] = mapped_column(String(200))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    rework_available: Mapped[int] = mapped_column(default=0)

    if TYPE_CHECKING:
        # The highest role in any organization, loaded when asked for; memberships define it.
        role: Mapped[str | None]

    @validates("email")
    def _set_email_key(self, _name: str, email: str) -> str:
        self.email_key = email_key(email)
        return email


class TokenFamily(Identified):
    """One sign-in, a session: its id is the `sid` claim of every token that descends from it.

    Revoked, all of them die. `last_used_at` is when tokens were last given for it.
    """

    __tablename__ = "token_families"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime] = mapped_column(default=utc_now)
    user_agent: Mapped[str | None] = mapped_column(String(400))

    user: Mapped[User] = relationship(lazy="raise")
    refresh_tokens: Mapped[list[RefreshToken]] = relationship(
        back_populates="family", lazy="raise", passive_deletes=True, cascade="all, delete-orphan"
    )


class RefreshToken(Identified):
    """One refresh token of a family.

    A used one stays, so that its second use is recognised and kills the family. `predecessor_id` is the token
    that it was given for, null for the one of the sign-in.
    """

    __tablename__ = "refresh_tokens"

    family_id: Mapped[UUID] = mapped_column(ForeignKey("token_families.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(128), unique=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    predecessor_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("refresh_tokens.id", ondelete="CASCADE"), index=True
    )

    family: Mapped[TokenFamily] = relationship(back_populates="refresh_tokens", lazy="raise")


class PasswordResetToken(Identified):
    """A password reset that was mailed: valid once, until it expires."""

    __tablename__ = "password_reset_tokens"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(128), unique=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
