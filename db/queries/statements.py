"""Statements that several modules use: one row, locks of names, deletion in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, select, tuple_
from sqlalchemy.orm import QueryableAttribute

from db.errors import NotFound
from db.session import Database, current_session

DELETE_BATCH_SIZE = 500
T = TypeVar("T")


def get_row(query: Select[T], row_id: UUID, for_update: bool = False) -> T:
    """Return the row that a query finds.

    Args:
        query: The query of the row.
        row_id: The id that the error names.
        for_update: Whether to lock the row, and to read it again if it was loaded before.

    Raises:
        NotFound: There is no such row.
    """
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    row = current_session().scalars(query).one_or_none()
    if row is None:
        raise NotFound(value=row_id)
    return row


def lock_name(name: str) -> None:
    """Wait until no other transaction has locked this name; the lock ends with the running transaction."""
    current_session().execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


def delete_in_batches(
    database: Database, key: Sequence[QueryableAttribute[Any]], condition: ColumnElement[bool]
) -> int:
    """Delete the rows of a model for which a condition holds, in short transactions of their own.

    Rows that another transaction has locked are left for the next run.

    Args:
        database: The database. No transaction may be running.
        key: The columns of the model's primary key.
        condition: The condition. It must use an index, because each batch evaluates it again.

    Returns:
        The number of deleted rows.
    """
    model = key[0].class_
    matching = select(*key).where(condition)
    deleted = 0
    while True:
        # A transaction per batch, so that locks are short and an interrupted run keeps what it has done.
        with database.transaction(write=True) as session:
            batch = matching.limit(DELETE_BATCH_SIZE).with_for_update(skip_locked=True)
            rows = [tuple(row) for row in session.execute(batch)]
            if rows:
                session.execute(delete(model).where(tuple_(*key).in_(rows)))
        deleted += len(rows)
        if len(rows) < DELETE_BATCH_SIZE:
            return deleted
