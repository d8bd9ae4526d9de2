"""The usage of organizations per day, maintained by triggers; see `db/usage/queries.py`."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base

NO_KEY = UUID(int=0)
"""The key of a group without a row, such as the generations that no API key requested; also `TOTAL`."""
TOTAL = NO_KEY
"""The `entry` of the compacted total."""
_IS_APPENDED = text(f"entry <> '{TOTAL.hex}'")


class UsageDimension(StrEnum):
    """What a record of usage is grouped by, apart from the day."""

    DAY = "day"
    MODEL = "model"
    MEMBER = "member"
    API_KEY = "api_key"
    PRODUCT = "product"


class UsageRecord(Base):
    """A row is a part of the usage of one day by one model, member, API key or product, or by all.

    The usage is the sum over the rows. `key` is the id of the model, member, API key or product. There are no
    foreign keys: what was used still counts when the model or product is deleted.
    """

    __tablename__ = "usage_records"
    __table_args__ = (
        Index("ix_usage_records_day", "organization_id", "dimension", "day", "key"),
        Index("ix_usage_records_appended", "entry", postgresql_where=_IS_APPENDED),
    )

    organization_id: Mapped[UUID] = mapped_column(primary_key=True)
    dimension: Mapped[str] = mapped_column(String(10), primary_key=True)
    key: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    entry: Mapped[UUID] = mapped_column(primary_key=True, default=TOTAL)
    credits: Mapped[int] = mapped_column(BigInteger, default=0)
    generations: Mapped[int] = mapped_column(BigInteger, default=0)
    failures: Mapped[int] = mapped_column(BigInteger, default=0)
    storage_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
