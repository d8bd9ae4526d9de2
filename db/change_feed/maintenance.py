"""Begin the change feed of a copied database anew, and copy rows without changing them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, delete, text

from db.models.changes import Change


def begin_new_feed(connection: Connection) -> None:
    """Delete all changes, and end the validity of the cursors of the database that was copied.

    On PostgreSQL, `get_feed_id` differs in each database anyway.
    """
    connection.execute(delete(Change))
    if connection.dialect.name == "sqlite":
        connection.execute(text(f"PRAGMA user_version = {secrets.randbelow(2**31)}"))


def begin_new_feed_of_file(path: Path) -> None:
    """Do the same in an SQLite file that no server uses."""
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            begin_new_feed(connection)
    finally:
        engine.dispose()


@contextmanager
def suspend_touch_triggers(connection: Connection) -> Iterator[None]:
    """Let rows be inserted in an SQLite database within the block without a change of their parents.

    On PostgreSQL, the triggers leave out parents that the same transaction has written.
    """
    triggers = connection.execute(
        text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND instr(name, '_touch_')")
    ).all()
    for name, _ in triggers:
        connection.execute(text(f"DROP TRIGGER {name}"))
    yield
    for _, statement in triggers:
        connection.exec_driver_sql(statement)
