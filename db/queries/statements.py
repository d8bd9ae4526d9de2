"""Statements that SQLAlchemy does not offer for both databases in one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import QueryableAttribute

from db.base import Base
from db.session import Database, current_session

DELETE_BATCH_SIZE = 500


def insert_for_dialect(dialect: str, model: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT with the clause ON CONFLICT, which `sqlalchemy.insert` lacks.

    Args:
        dialect: The name of the dialect, `sqlite` or `postgresql`.
        model: The model whose rows are inserted.
    """
    # Both classes have the same methods, `on_conflict_do_update` and `on_conflict_do_nothing`.
    return sqlite.insert(model) if dialect == "sqlite" else postgresql.insert(model)


def lock_name(name: str) -> None:
    """Wait until no other transaction has locked this name; the lock ends with the running transaction.

    SQLite has one writer, so it needs no lock.
    """
    session = current_session()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


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
    # Mostly there is nothing to delete. On SQLite a write transaction would make all other writers wait.
    with database.transaction(write=False) as session:
        if session.execute(matching.limit(1)).first() is None:
            return 0
    deleted = 0
    while True:
        # A transaction per batch, so that locks are short and an interrupted run keeps what it has done.
        with database.transaction(write=True) as session:
            batch = matching.limit(DELETE_BATCH_SIZE).with_for_update(skip_locked=True)
            rows = [tuple(row) for row in session.execute(batch)]
            session.execute(delete(model).where(tuple_(*key).in_(rows)))
        deleted += len(rows)
        if len(rows) < DELETE_BATCH_SIZE:
            return deleted
