"""Attempts to guess passwords and mailed tokens, and the addresses from which users have signed in before.

The counts are rows, so that all processes share them and a restart does not reset them. IP and e-mail
addresses are stored only as keyed hashes (HMAC with the server's secret).
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class AttemptCount(Base):
    """A row is what one subject has used of a rate limit; it is deleted when the whole limit is available."""

    __tablename__ = "try_counts"

    policy: Mapped[str] = mapped_column(String(40), primary_key=True)
    subject_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[int] = mapped_column(BigInteger, index=True)
    """The time when the whole limit is available again, in microseconds since 1970 (GCRA)."""


class KnownAddress(Base):
    """A row is an address from which a user has signed in to their account."""

    __tablename__ = "known_addresses"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    address_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
