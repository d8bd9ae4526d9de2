"""Insert and update many rows with one statement each, whose text does not depend on their number.

Each column is one array. A statement with a parameter per value would be parsed again for each
group of rows, and one statement per row would run the triggers of the table (counts of rows, changes) for
each of them.

Benchmark: imports of products, docs/guides/imports.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Column, Table, TextClause, text
from sqlalchemy.dialects import postgresql

from db.session import current_write_connection

_DIALECT: Any = postgresql.dialect()


def insert_new(table: Table, rows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Insert rows that violate no unique index, and return their ids.

    Args:
        table: The table, with a column `id`.
        rows: The values by column. All rows have the same columns.
    """
    names = tuple(rows[0])
    statement = _build_insert(table, names)
    return set(current_write_connection().scalars(statement, _to_arrays(table, names, rows)))


def update_by_id(table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Update rows by their `id`. All rows have the same columns."""
    names = tuple(rows[0])
    current_write_connection().execute(_build_update(table, names), _to_arrays(table, names, rows))


@cache
def _build_insert(table: Table, names: tuple[str, ...]) -> TextClause:
    columns = ", ".join(names)
    return text(
        f"INSERT INTO {table.name} ({columns}) SELECT * FROM {_build_unnest(table, names)} "  # noqa: S608 - names of columns
        "ON CONFLICT DO NOTHING RETURNING id"
    )


@cache
def _build_update(table: Table, names: tuple[str, ...]) -> TextClause:
    changes = ", ".join(f"{name} = new.{name}" for name in names if name != "id")
    return text(
        f"UPDATE {table.name} SET {changes} "  # noqa: S608 - names of columns
        f"FROM {_build_unnest(table, names)} AS new ({', '.join(names)}) WHERE {table.name}.id = new.id"
    )


def _build_unnest(table: Table, names: tuple[str, ...]) -> str:
    arrays = (f"CAST(:{name} AS {table.c[name].type.compile(_DIALECT)}[])" for name in names)
    return f"unnest({', '.join(arrays)})"


def _to_arrays(
    table: Table, names: tuple[str, ...], rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    return {name: [_to_element(table.c[name], row[name]) for row in rows] for name in names}


def _to_element(column: Column[Any], value: Any) -> Any:
    return json.dumps(value) if isinstance(column.type, JSON) and value is not None else value
