"""Read all rows of the database, to compare them before and after a request that must change nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from db.base import Base
from db.models import AuditEvent
from handlers.app import Application


def snapshot_rows(app: Application) -> dict[str, list[Any]]:
    """Return the rows of each table for all tenants. Not of the audit log, which also records denials."""
    with app.database.transaction(write=False) as reading:
        return {
            table.name: [tuple(row) for row in reading.execute(select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
            if table.name != AuditEvent.__tablename__
        }
