"""Read all rows of the database, to compare them before and after a request that must change nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

from db.base import Base
from db.models import AuditEvent
from handlers.app import Application

TABLES = sorted(table.name for table in Base.metadata.sorted_tables if table.name != AuditEvent.__tablename__)


def snapshot_rows(app: Application) -> dict[str, list[Any]]:
    """Return the rows of each table for all tenants. Not of the audit log, which also records denials."""
    with app.database.transaction(write=False) as reading:
        connection = reading.connection()
        rows: dict[str, list[Any]] = {name: [] for name in TABLES}
        for name, row in connection.exec_driver_sql(_select_all_tables()):
            rows[name].append(row)
    return {name: sorted(rows[name]) for name in TABLES}


# Raw SQL: the suites over every operation take hundreds of snapshots of sixty tables.
@cache
def _select_all_tables() -> str:
    selects = [f"SELECT '{name}', t::text FROM \"{name}\" t" for name in TABLES]  # noqa: S608 - names of models
    return " UNION ALL ".join(selects)
