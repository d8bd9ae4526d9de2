"""How many rows the lists of growing tables have: kept by triggers, so that nobody has to count them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import TRIGGER_MAINTAINED, Base

_IS_UNCOMPACTED = text("entry > 0")


class RowCount(Base):
    """A part of how many rows of a table a scope has, all of them or those with one value in one column.

    The sum over `number` is the count. Entry 0 holds what is added up, each other one a change that is not
    yet; see `db/row_counts/queries.py`. No foreign keys: a count outlives its last row.
    """

    __tablename__ = "row_counts"
    __table_args__ = (
        Index(
            "ix_row_counts_waiting", "entry", sqlite_where=_IS_UNCOMPACTED, postgresql_where=_IS_UNCOMPACTED
        ),
        {"info": {TRIGGER_MAINTAINED: True}},
    )

    table_name: Mapped[str] = mapped_column(String(40), primary_key=True)
    column_name: Mapped[str] = mapped_column(String(40), primary_key=True)
    """Empty where all rows of the scope are meant; so is the value."""
    value: Mapped[str] = mapped_column(String(120), primary_key=True)
    """As the database writes it as text."""
    scope_id: Mapped[UUID] = mapped_column(primary_key=True)
    """The organization or, of personal rows, the account."""
    entry: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, default=0)
    number: Mapped[int] = mapped_column(BigInteger)
