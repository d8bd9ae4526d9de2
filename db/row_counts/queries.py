"""How many rows a list has, without counting them.

- Kept is what can grow with the work of a tenant: the tables of `KEPT`, in total and by each column that a
  list filters by and that has few values. What one filters by a parent (the shots of a look) is counted: it
  grows with the parent only. So are libraries, which people fill by hand and lists mix with public rows.
- A row of `row_counts` is a change of the count of one key: table, column, value, scope. The count of a key
  is the sum over its rows. Triggers write them within the transaction that changes the rows, so in any
  snapshot the sum is what COUNT(*) would find; whoever rolls back or is killed leaves neither.
- On PostgreSQL changes are appended, one row a statement and key: a total that each writer updates would let
  them wait for each other. `add_up` replaces those that wait by one total, in one statement: a reader sees
  them before or after. SQLite, which has one writer, adds them to the total at once.
- `kept_total` answers what is one scope and at most one value; all else leads to COUNT(*). Who asks says what
  the rows are narrowed by, and that is equality with a column.
- Without a scope, as superusers ask, the totals of all scopes are summed: one row for each tenant.
"""

from __future__ import annotations

from typing import Any

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
from db.models.counts import RowCount
from db.models.exports import Export
from db.models.generations import Generation, Prediction
from db.models.guidelines import Guidelines
from db.models.products import Product
from db.models.shootings import Shooting, Shot
from db.session import current_session

COUNTED: dict[type[Owned], frozenset[str]] = {
    Brand: frozenset(),
    Export: frozenset({"status"}),
    Generation: frozenset({"status", "generation_strategy"}),
    Guidelines: frozenset(),
    Prediction: frozenset({"status"}),
    Product: frozenset({"brand_id", "category", "state"}),
    Shooting: frozenset({"brand_id", "phase", "archived"}),
    Shot: frozenset({"status", "shot_type_id"}),
}

MAX_COMPACTED_ENTRIES = 50_000
_ADVISORY_LOCK = 5_172_002
"""Any number that is not the one of the migrations."""

# The deletion gives what it deleted, and no other process deletes the same.
_COMPACT = text(
    """
    WITH waiting AS (
        SELECT entry FROM row_counts WHERE entry > 0 ORDER BY entry LIMIT :at_once
    ), gone AS (
        DELETE FROM row_counts WHERE entry > 0 AND entry <= (SELECT max(entry) FROM waiting) RETURNING *
    ), added AS (
        INSERT INTO row_counts (table_name, column_name, value, scope_id, entry, number)
        SELECT table_name, column_name, value, scope_id, 0, sum(number) FROM gone
        GROUP BY table_name, column_name, value, scope_id
        ON CONFLICT (table_name, column_name, value, scope_id, entry)
        DO UPDATE SET number = row_counts.number + excluded.number
    )
    SELECT count(*) FROM gone
    """
)


def stored_count(model: Any, column: str | None, scope_id: ColumnElement[Any] | None) -> Select[Any] | None:
    """Select how many rows of a model a scope has, or all scopes have; None where that is not kept.

    With a column those that have one value in it, which is named as the column is and given later.
    """
    if model not in COUNTED or (column is not None and column not in COUNTED[model]):
        return None
    value: ColumnElement[Any] = literal("")
    if column is not None:
        value = cast(bindparam(column, type_=inspect(model).columns[column].type), Text)
    return select(cast(func.coalesce(func.sum(RowCount.number), 0), BigInteger)).where(
        RowCount.table_name == model.__tablename__,
        RowCount.column_name == (column or ""),
        RowCount.value == value,
        *([] if scope_id is None else [RowCount.scope_id == scope_id]),
    )


def compact_counts(connection: Connection) -> bool:
    """Replace changes that wait by totals, a bounded number of them; whether more may wait.

    For the system and the owner of the tables. When another process is at it, it is left to that one.
    """
    if connection.dialect.name == "sqlite":
        return False
    if not connection.scalar(select(func.pg_try_advisory_xact_lock(_ADVISORY_LOCK))):
        return False
    return int(connection.scalar(_COMPACT, {"at_once": MAX_COMPACTED_ENTRIES}) or 0) >= MAX_COMPACTED_ENTRIES


def delete_zero_counts() -> None:
    """Remove totals that came to nothing, such as those by a brand that is gone."""
    current_session().execute(delete(RowCount).where(RowCount.entry == 0, RowCount.number == 0))
