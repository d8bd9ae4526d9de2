"""User accounts, their sessions (token families), password resets, e-mail changes and deletions.

Passwords and tokens are stored as hashes only.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from db.base import Identified, utc_now


def email_key(email: str) -> str:
    """Return the normalized form that makes an e-mail address unique: trimmed and case-folded."""
    return email.strip().casefold()


class User(Identified):
    """A row is a user account.

    `email` keeps the user's spelling; `email_key` is its normalized form, which is unique.
    """

    __tablename__ = "users"

    email: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(String(640), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(255))
    full_name: Mapped[str | None] = mapped_column(String(200))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    rework_available: Mapped[int] = mapped_column(default=0)
    has_second_factor: Mapped[bool] = mapped_column(default=False)
    """Whether a sign-in needs an authenticator app or a passkey too. `second_factors` changes it."""
    storage_low_at: Mapped[datetime | None]
    """The time of the event `storage.low`; null again when there is space."""

    if TYPE_CHECKING:
        # The highest role in any organization. It is deferred: load it with `undefer(User.role)`.
        role: Mapped[str | None]

    @validates("email")
    def _set_email_key(self, _name: str, email: str) -> str:
        self.email_key = email_key(email)
        return email


class TokenFamily(Identified):
    """A row is one session, from a sign-in; its id is the `sid` claim of all of its tokens.

    Revoking it makes all of its tokens invalid. `last_used_at` is the time of the last token refresh.
    """

    __tablename__ = "token_families"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime] = mapped_column(default=utc_now)
    user_agent: Mapped[str | None] = mapped_column(String(400))
    address: Mapped[str | None] = mapped_column(String(45))
    """The IP address of the sign-in; null if it was not recorded (before release 0.3.0)."""
    organization_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), index=True
    )
    """The only organization of a session from its identity provider; null for other sessions."""
    identity_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("user_identities.id", ondelete="CASCADE"), index=True
    )
    """The identity that signed in at a provider, whose deletion ends the session; null for other sessions."""

    user: Mapped[User] = relationship(lazy="raise")
    refresh_tokens: Mapped[list[RefreshToken]] = relationship(
        back_populates="family", lazy="raise", passive_deletes=True, cascade="all, delete-orphan"
    )


class RefreshToken(Identified):
    """A row is one refresh token of a session.

    A used token stays, so that its reuse is detected and revokes the session (RFC 9700, section 4.14.2).
    `predecessor_id` is the token that was exchanged for this one, null for the token of the sign-in.
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
    """A row is a mailed token for a password reset; it is valid once, until it expires."""

    __tablename__ = "password_reset_tokens"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(128), unique=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class EmailChange(Identified):
    """A row is a user's latest request for a new e-mail address, until the address is confirmed."""

    __tablename__ = "email_changes"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    email: Mapped[str] = mapped_column(String(320))
    token_hash: Mapped[str] = mapped_column(String(128), unique=True)
    expires_at: Mapped[datetime]


class AccountDeletion(Identified):
    """A row is the scheduled deletion of an account; canceling it deletes the row.

    `started_at` is the time at which the deletion began, after which it cannot be canceled.
    """

    __tablename__ = "account_deletions"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    token_hash: Mapped[str] = mapped_column(String(128), unique=True)
    deletes_at: Mapped[datetime] = mapped_column(index=True)
    started_at: Mapped[datetime | None]
