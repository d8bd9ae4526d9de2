"""The counter cache of growing tables, maintained by triggers; see `db/row_counts/queries.py`."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import TRIGGER_MAINTAINED, Base

_IS_UNCOMPACTED = text("entry > 0")


class RowCount(Base):
    """A row is a part of the number of a tenant's rows in a table, in total or with one value in one column.

    The count is the sum over `number`. Entry 0 is the compacted total, every other entry a change that is not
    compacted yet. There are no foreign keys because a count outlives its last row.
    """

    __tablename__ = "row_counts"
    __table_args__ = (
        Index("ix_row_counts_waiting", "entry", postgresql_where=_IS_UNCOMPACTED),
        {"info": {TRIGGER_MAINTAINED: True}},
    )

    table_name: Mapped[str] = mapped_column(String(40), primary_key=True)
    column_name: Mapped[str] = mapped_column(String(40), primary_key=True)
    """Empty for the count of all rows of the tenant; so is `value`."""
    value: Mapped[str] = mapped_column(String(120), primary_key=True)
    """The value as the database casts it to text."""
    scope_id: Mapped[UUID] = mapped_column(primary_key=True)
    """The organization, or the owner of personal rows."""
    entry: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, default=0)
    number: Mapped[int] = mapped_column(BigInteger)
