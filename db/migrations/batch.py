"""Alter a table in a migration, also on SQLite."""

from __future__ import annotations

from contextlib import AbstractContextManager

from alembic import op
from alembic.operations.base import BatchOperations


def alter_table(table: str) -> AbstractContextManager[BatchOperations]:
    """Return a context manager for Alembic's batch operations on a table.

    SQLite rebuilds the table for most changes. Alembic would then also reflect all tables that it refers to,
    directly or indirectly, which is half of the time of creating a new database.
    """
    return op.batch_alter_table(table, reflect_kwargs={"resolve_fks": False})
