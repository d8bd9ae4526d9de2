"""Read the row counts that triggers maintain, count the same rows with COUNT(*), and find any row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Text, cast, func, literal, select, text

from db.copy_database import connect_to_all_rows, list_tables
from db.models import RowCount
from db.row_counts.queries import COUNTED

Counts = dict[tuple[Any, ...], int]


def stored_counts(connection: Connection) -> Counts:
    """Return the stored counts other than 0, by table, column, value and tenant id. Not those of bytes."""
    key = (RowCount.table_name, RowCount.column_name, RowCount.value, RowCount.scope_id)
    total = func.sum(RowCount.number)
    rows = connection.execute(
        select(*key, total).where(RowCount.column_name != "bytes").group_by(*key).having(total != 0)
    )
    return {tuple(row[:-1]): int(row[-1]) for row in rows}


def actual_counts(connection: Connection) -> Counts:
    """Return the same counts, from COUNT(*)."""
    counts: Counts = {}
    for model, columns in COUNTED.items():
        table: Any = model.__table__
        tenant_id = func.coalesce(table.c.organization_id, table.c.owner_id)
        for name in ("", *columns):
            value = cast(table.c[name], Text) if name else literal("")
            rows = connection.execute(
                select(value, tenant_id, func.count()).where(value.is_not(None)).group_by(value, tenant_id)
            )
            counts |= {(table.name, name, row[0], row[1]): row[2] for row in rows}
    return counts


def has_rows(url: str) -> bool:
    """Return whether any table of a database has rows. The schema may be of another release."""
    with connect_to_all_rows(url) as connection:
        tables = [f'EXISTS (SELECT FROM "{table}")' for table in list_tables(connection)]
        return bool(connection.scalar(text(f"SELECT {' OR '.join(tables)}")))
