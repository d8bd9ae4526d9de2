"""Second factors of accounts, and the challenges that one of them answers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified, Json


class FactorType(StrEnum):
    """What proves that a person is the owner of an account, besides the password."""

    TOTP = "totp"
    PASSKEY = "passkey"
    RECOVERY_CODES = "recovery_codes"


class SecondFactor(Identified):
    """A row is an authenticator app (TOTP), a passkey, or the recovery codes of an account.

    `confirmed_at` is null for an app that has not shown a code yet; it cannot be used. `secret` is encrypted,
    see `studio.accounts.identity.second_factors`; `secret_key` names the key without revealing it. The other
    columns are null where the type has no such property.
    """

    __tablename__ = "second_factors"
    __table_args__ = (Index("ix_second_factors_user", "user_id", "created_at", "id"),)
    internal_columns: ClassVar = frozenset(("last_step", "secret_key", "sign_count"))

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(String(100))
    confirmed_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    secret_key: Mapped[str | None] = mapped_column(String(16), index=True)
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    """The time step of the last code of an app. It and earlier ones are not accepted again."""
    code_hashes: Mapped[list[str] | None] = mapped_column(Json)
    """The hashes of the recovery codes that were not used."""
    credential_id: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True)
    public_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    sign_count: Mapped[int | None] = mapped_column(BigInteger)


class SecondFactorChallenge(Identified):
    """A row is a sign-in that waits for its second factor, or a passkey that is being registered.

    It is deleted when it is answered. `password_hash` is the hash of the stored password hash at the time of
    the sign-in; null for a registration.
    """

    __tablename__ = "second_factor_challenges"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(128), unique=True)
    password_hash: Mapped[str | None] = mapped_column(String(64))
    attempts: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[datetime]
