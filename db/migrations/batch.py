"""How a step of the history changes a table that is there."""

from __future__ import annotations

from contextlib import AbstractContextManager

from alembic import op
from alembic.operations.base import BatchOperations


def alter_table(table: str) -> AbstractContextManager[BatchOperations]:
    """Change a table, which SQLite copies for most of it.

    Alembic would first read the tables that the copied one refers to, and those that these refer to: half of
    the work that it is to make a new database.
    """
    return op.batch_alter_table(table, reflect_kwargs={"resolve_fks": False})
