"""The counts that the database keeps, beside what COUNT(*) finds in the same snapshot."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Text, cast, func, literal, select

from db.models import RowCount
from db.row_counts.queries import COUNTED

Counts = dict[tuple[Any, ...], int]


def stored_counts(connection: Connection) -> Counts:
    """What is kept, by table, column, value and scope; what came to nothing is left out."""
    key = (RowCount.table_name, RowCount.column_name, RowCount.value, RowCount.scope_id)
    total = func.sum(RowCount.number)
    rows = connection.execute(select(*key, total).group_by(*key).having(total != 0))
    return {tuple(row[:-1]): int(row[-1]) for row in rows}


def actual_counts(connection: Connection) -> Counts:
    """The same, counted now."""
    found: Counts = {}
    for model, columns in COUNTED.items():
        table: Any = model.__table__
        scope = func.coalesce(table.c.organization_id, table.c.owner_id)
        for name in ("", *columns):
            value = cast(table.c[name], Text) if name else literal("")
            rows = connection.execute(
                select(value, scope, func.count()).where(value.is_not(None)).group_by(value, scope)
            )
            found |= {(table.name, name, row[0], row[1]): row[2] for row in rows}
    return found
