"""Insert and update many rows with one statement each, whose text does not depend on their number.

The rows are one JSON document: a parameter per column would be an array that the driver builds value by value
in Python, and a statement with a parameter per value would be parsed again for each group of rows. One
statement per row would run the triggers of the table (counts of rows, changes) for each of them.

Benchmark: imports of products, docs/guides/imports.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import JSON, Table, TextClause, bindparam, text
from sqlalchemy.dialects import postgresql

from db.fast_path.json_columns import dump_json
from db.session import current_write_connection

_DIALECT: Any = postgresql.dialect()
_NONE: Mapping[str, Any] = {}


def insert_new(
    table: Table, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any] = _NONE
) -> set[UUID]:
    """Insert rows that violate no unique index, and return their ids.

    Args:
        table: The table, with a column `id`.
        rows: The values by column. A column that only other rows have is null.
        shared: The values that all rows have.
    """
    statement = _build_insert(table, _list_names(rows), tuple(shared))
    return set(current_write_connection().scalars(statement, {"rows": _dump(table, rows), **shared}))


def update_by_id(table: Table, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any] = _NONE) -> None:
    """Update rows by their `id`; `rows` and `shared` are those of `insert_new`."""
    statement = _build_update(table, _list_names(rows), tuple(shared))
    current_write_connection().execute(statement, {"rows": _dump(table, rows), **shared})


def _list_names(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted({name for row in rows for name in row}))


@cache
def _build_insert(table: Table, names: tuple[str, ...], shared: tuple[str, ...]) -> TextClause:
    values = ", ".join([*(_read(table, name) for name in names), *(f":{name}" for name in shared)])
    return _bind(
        table,
        shared,
        f"INSERT INTO {table.name} ({', '.join(names + shared)}) "  # noqa: S608 - names of columns
        f"SELECT {values} FROM {_build_source(table, names)} ON CONFLICT DO NOTHING RETURNING id",
    )


@cache
def _build_update(table: Table, names: tuple[str, ...], shared: tuple[str, ...]) -> TextClause:
    changes = [f"{name} = {_read(table, name)}" for name in names if name != "id"]
    changes += [f"{name} = :{name}" for name in shared]
    return _bind(
        table,
        shared,
        f"UPDATE {table.name} SET {', '.join(changes)} "  # noqa: S608 - names of columns
        f"FROM {_build_source(table, names)} WHERE {table.name}.id = new.id",
    )


def _bind(table: Table, shared: tuple[str, ...], statement: str) -> TextClause:
    return text(statement).bindparams(*(bindparam(name, type_=table.c[name].type) for name in shared))


def _build_source(table: Table, names: tuple[str, ...]) -> str:
    columns = (f"{name} {_get_type(table, name)}" for name in names)
    return f"json_to_recordset(CAST(:rows AS JSON)) AS new ({', '.join(columns)})"


def _get_type(table: Table, name: str) -> str:
    # PostgreSQL reads all texts of the document and rejects the escape of U+0000, which JSON columns contain.
    # So their values are texts of JSON in it.
    kind = table.c[name].type
    return "TEXT" if isinstance(kind, JSON) else kind.compile(_DIALECT)


def _read(table: Table, name: str) -> str:
    return f"CAST(new.{name} AS JSON)" if isinstance(table.c[name].type, JSON) else f"new.{name}"


def _dump(table: Table, rows: Sequence[Mapping[str, Any]]) -> str:
    for name in (column.name for column in table.c if isinstance(column.type, JSON)):
        rows = [{**row, name: dump_json(row[name])} if row.get(name) is not None else row for row in rows]
    return orjson.dumps(rows).decode()
