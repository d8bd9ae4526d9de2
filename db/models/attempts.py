"""Tries at passwords and mailed tokens, which no restart forgets, and from where accounts are signed in to.

Who tried is kept as a hash that only the server's secret makes: addresses of strangers are nobody's business.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class AttemptCount(Base):
    """What somebody has spent of a limit; gone when it has all grown again."""

    __tablename__ = "try_counts"

    policy: Mapped[str] = mapped_column(String(40), primary_key=True)
    subject_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[int] = mapped_column(BigInteger, index=True)
    """The microsecond since 1970 at which nothing is spent any more."""


class KnownAddress(Base):
    """An address from which somebody has proved that an account is his."""

    __tablename__ = "known_addresses"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    address_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
