"""Statements that several modules use: locks of names, deletion in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, tuple_
from sqlalchemy.orm import QueryableAttribute

from db.session import Database, current_session

DELETE_BATCH_SIZE = 500


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
