"""Read all rows of the database, to compare them before and after a request that must change nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import TextClause, text

from db.base import Base
from db.models import AuditEvent
from handlers.app import Application

TABLES = sorted(table.name for table in Base.metadata.sorted_tables if table.name != AuditEvent.__tablename__)


def snapshot_rows(app: Application) -> dict[str, list[Any]]:
    """Return the rows of each table for all tenants. Not of the audit log, which also records denials."""
    with app.database.transaction(write=False) as reading:
        if reading.get_bind().dialect.name == "sqlite":
            return {name: sorted(reading.execute(query), key=repr) for name, query in _select_each_table()}
        rows: dict[str, list[Any]] = {name: [] for name in TABLES}
        for name, row in reading.execute(_select_all_tables()):
            rows[name].append(row)
    return {name: sorted(rows[name]) for name in TABLES}


# Raw SQL skips the conversion of values: the suites over every operation take hundreds of snapshots.


@cache
def _select_each_table() -> list[tuple[str, TextClause]]:
    return [(name, text(f'SELECT * FROM "{name}"')) for name in TABLES]  # noqa: S608 - names of models


@cache
def _select_all_tables() -> TextClause:
    selects = [f"SELECT '{name}', t::text FROM \"{name}\" t" for name in TABLES]  # noqa: S608 - names of models
    return text(" UNION ALL ".join(selects))
