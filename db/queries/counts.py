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
- `kept_count` reads a query's own conditions. It answers those that are one scope and at most one value, so a
  condition that it does not know leads to COUNT(*), never to a wrong number.
- Without a scope, as superusers ask, the totals of all scopes are summed: one row for each tenant.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Column,
    ColumnElement,
    Connection,
    Select,
    Text,
    cast,
    delete,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import False_, Null, True_

from db.base import Owned
from db.models.brands import Brand
from db.models.counts import RowCount
from db.models.exports import Export
from db.models.generations import Generation, Prediction
from db.models.guidelines import Guidelines
from db.models.products import Product
from db.models.shootings import Shooting, Shot
from db.session import session

KEPT: dict[type[Owned], frozenset[str]] = {
    Brand: frozenset(),
    Export: frozenset({"status"}),
    Generation: frozenset({"status", "generation_strategy"}),
    Guidelines: frozenset(),
    Prediction: frozenset({"status"}),
    Product: frozenset({"brand_id", "category", "state"}),
    Shooting: frozenset({"brand_id", "phase", "archived"}),
    Shot: frozenset({"status", "shot_type_id"}),
}

AT_ONCE = 50_000
_LOCK = 5_172_002
"""Any number that is not the one of the migrations."""

# The deletion gives what it deleted, and no other process deletes the same.
_ADD_UP = text(
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


def kept_count(query: Select[Any], model: Any) -> int | None:
    """How many rows a query of one model finds, None where that is not kept.

    It must have no joins and no limit; what it asks for is read from its conditions.
    """
    if model not in KEPT or (conditions := _equalities(query.whereclause, model)) is None:
        return None
    scopes = _take_scope(conditions)
    if scopes is None or len(conditions) > 1 or not conditions.keys() <= KEPT[model]:
        return None
    name, value = next(iter(conditions.items()), ("", literal("")))
    if value is None:
        return None
    total = select(func.sum(RowCount.number)).where(
        RowCount.table_name == model.__tablename__,
        RowCount.column_name == name,
        RowCount.value == cast(value, Text),
        *scopes,
    )
    return int(session().scalar(total) or 0)


def add_up(connection: Connection) -> bool:
    """Replace changes that wait by totals, a bounded number of them; whether more may wait.

    For the system and the owner of the tables. When another process is at it, it is left to that one.
    """
    if connection.dialect.name == "sqlite":
        return False
    if not connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))):
        return False
    return int(connection.scalar(_ADD_UP, {"at_once": AT_ONCE}) or 0) >= AT_ONCE


def forget_zeros() -> None:
    """Remove totals that came to nothing, such as those by a brand that is gone."""
    session().execute(delete(RowCount).where(RowCount.entry == 0, RowCount.number == 0))


def _take_scope(conditions: dict[str, Any]) -> list[ColumnElement[bool]] | None:
    """The condition for the scope that these name, taken from them: none for all rows, None for others."""
    if "organization_id" not in conditions:
        return None if "owner_id" in conditions else []
    organization_id = conditions.pop("organization_id")
    if organization_id is not None:
        return [RowCount.scope_id == organization_id]
    owner_id = conditions.pop("owner_id", None)
    return None if owner_id is None else [RowCount.scope_id == owner_id]


def _equalities(condition: ColumnElement[bool] | None, model: Any) -> dict[str, Any] | None:
    """The value that each column must have, by its name; None when the condition is of another form."""
    found: dict[str, Any] = {}
    for part in _conjuncts(condition):
        if not isinstance(part, BinaryExpression) or not isinstance(part.left, Column):
            return None
        name, value = part.left.key, part.right
        if part.left.table.name != model.__tablename__ or name in found:
            return None
        if part.operator is operators.is_ and isinstance(value, Null):
            found[name] = None
        elif part.operator is operators.eq and isinstance(value, BindParameter):
            found[name] = literal(value.value, part.left.type)
        elif part.operator is operators.eq and isinstance(value, True_ | False_):
            found[name] = value
        else:
            return None
    return found


def _conjuncts(condition: ColumnElement[bool] | None) -> Iterator[ColumnElement[bool]]:
    if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for part in condition.clauses:
            yield from _conjuncts(part)
    elif condition is not None:
        yield condition
