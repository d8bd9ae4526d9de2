"""Read the counter cache: how many rows a list has, without counting them.

- **What is cached**: tables that grow with a tenant's work (`COUNTED`), in total and per value of each column
  that lists filter by and that has few values. Lists below a parent (the shots of a look) use COUNT(*): they
  grow with the parent only. So do libraries such as styles, which are small and mix in public rows.
- **Storage**: a row of `row_counts` is a change of the count of one key (table, column, value, tenant); the
  count is the sum over the rows of the key. Triggers write these rows in the transaction that changes the
  counted rows. So in every snapshot the sum equals COUNT(*), also after a rollback or a crash.
- **Compaction**: each statement appends one row per key. Updating one total instead would make all writers of
  a tenant wait for each other. `compact_counts` replaces appended rows by one total in a single statement, so
  a reader sees either the changes or the total.
- **Reading**: `stored_count` answers for one tenant and at most one filter by equality; other lists use
  COUNT(*). Superusers who list all tenants get the sum over all tenants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    func,
    inspect,
    literal,
    select,
    text,
)

from db.base import Owned
from db.models.brands import Brand
from db.models.exports import Export
from db.models.generations import Generation, Prediction
from db.models.guidelines import Guidelines
from db.models.imports import ProductImport
from db.models.products import Product
from db.models.row_counts import RowCount
from db.models.shootings import Shooting, Shot
from db.session import current_session

COUNTED: dict[type[Owned], frozenset[str]] = {
    Brand: frozenset(),
    Export: frozenset({"status"}),
    Generation: frozenset({"status", "generation_strategy"}),
    Guidelines: frozenset(),
    Prediction: frozenset({"status"}),
    ProductImport: frozenset({"status"}),
    Product: frozenset({"brand_id", "category", "state"}),
    Shooting: frozenset({"brand_id", "phase", "archived"}),
    Shot: frozenset({"status", "shot_type_id"}),
}

MAX_COMPACTED_ENTRIES = 50_000
_ADVISORY_LOCK = 5_172_002
"""An arbitrary number; it must differ from `MIGRATION_LOCK`."""

# One statement, so no snapshot contains both the total and the rows it replaces. DELETE ... RETURNING adds up
# exactly the deleted rows: a change that commits meanwhile is neither deleted nor added.
_COMPACT = text(
    """
    WITH pending AS (
        SELECT entry FROM row_counts WHERE entry > 0 ORDER BY entry LIMIT :batch_size
    ), deleted AS (
        DELETE FROM row_counts WHERE entry > 0 AND entry <= (SELECT max(entry) FROM pending) RETURNING *
    ), compacted AS (
        INSERT INTO row_counts (table_name, column_name, value, scope_id, entry, number)
        SELECT table_name, column_name, value, scope_id, 0, sum(number) FROM deleted
        GROUP BY table_name, column_name, value, scope_id
        ON CONFLICT (table_name, column_name, value, scope_id, entry)
        DO UPDATE SET number = row_counts.number + excluded.number
    )
    SELECT count(*) FROM deleted
    """
)


def stored_count(model: Any, column: str | None, scope_id: ColumnElement[Any] | None) -> Select[Any] | None:
    """Return the statement that reads a cached count, or None if that count is not cached.

    Args:
        model: The model whose rows are counted.
        column: Count only rows with one value in this column. The value is a bind parameter with the name of
            the column.
        scope_id: The organization or the owner of personal rows; None counts the rows of all tenants.
    """
    if model not in COUNTED or (column is not None and column not in COUNTED[model]):
        return None
    value: ColumnElement[Any] = literal("")
    if column is not None:
        # The database converts the value to text as the triggers do, so both spell it the same way.
        value = cast(bindparam(column, type_=inspect(model).columns[column].type), Text)
    return select(cast(func.coalesce(func.sum(RowCount.number), 0), BigInteger)).where(
        RowCount.table_name == model.__tablename__,
        RowCount.column_name == (column or ""),
        RowCount.value == value,
        *([] if scope_id is None else [RowCount.scope_id == scope_id]),
    )


def sum_stored_counts(model: type[Owned], column: str, values: Sequence[str], scope_id: UUID) -> Select[Any]:
    """Return the statement that adds up the cached counts of several values of a column, for one tenant.

    Args:
        model: The model whose rows are counted.
        column: A text column of `COUNTED`.
        values: Its values.
        scope_id: The organization, or the owner of personal rows.
    """
    return select(cast(func.coalesce(func.sum(RowCount.number), 0), BigInteger)).where(
        RowCount.table_name == model.__tablename__,
        RowCount.column_name == column,
        RowCount.value.in_(values),
        RowCount.scope_id == scope_id,
    )


def compact_counts(connection: Connection) -> bool:
    """Replace up to `MAX_COMPACTED_ENTRIES` appended changes by totals; return whether more may be pending.

    The connection must have the system role or own the tables. Does nothing while another process compacts.
    """
    # Two processes would wait for each other's totals; one is enough.
    if not connection.scalar(select(func.pg_try_advisory_xact_lock(_ADVISORY_LOCK))):
        return False
    return (
        int(connection.scalar(_COMPACT, {"batch_size": MAX_COMPACTED_ENTRIES}) or 0) >= MAX_COMPACTED_ENTRIES
    )


def delete_zero_counts() -> None:
    """Delete totals of zero, such as those of a deleted brand."""
    current_session().execute(delete(RowCount).where(RowCount.entry == 0, RowCount.number == 0))
