"""Engines: how this project connects to SQLite and PostgreSQL, and what each connection is told first."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

MAX_LOCK_WAIT_MILLISECONDS = 15_000
"""How long a statement waits for the lock of another transaction, on both databases."""
POOL_TIMEOUT_SECONDS = 15
PING_AFTER_IDLE_SECONDS = 1.0
"""How long after its last use a connection of PostgreSQL is taken to be alive without asking it."""

_RETURNED_AT = "returned_at"


def build_engine(url: str, pool_size: int = 10, statement_seconds: int | None = None) -> Engine:
    """An engine for SQLite or PostgreSQL with at most `pool_size` connections.

    `postgresql://` means psycopg 3, as `postgresql+psycopg://` does. With `statement_seconds` PostgreSQL ends
    statements that take longer, and those that wait too long for a lock.
    """
    address = make_url(url)
    if address.drivername in ("postgresql", "postgres"):
        address = address.set(drivername="postgresql+psycopg")
    options: dict[str, Any] = {}
    if address.database not in (None, "", ":memory:"):
        # Said, because a named SQLite database in memory would get a pool of another kind.
        options = {"poolclass": QueuePool, "pool_size": pool_size, "max_overflow": 0}
        options["pool_timeout"] = POOL_TIMEOUT_SECONDS
    # Errors of the database are logged, and what was written is nobody's business who reads the log.
    options["hide_parameters"] = True
    if address.get_backend_name() == "postgresql":
        # Here, because whoever has SQLite needs no driver of PostgreSQL.
        from db.fast_path.psycopg_cursor import LazyDescriptionCursor

        options["connect_args"] = {"cursor_factory": LazyDescriptionCursor}
    engine = create_engine(address, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", partial(_prepare_postgresql, statement_seconds))
        event.listen(engine, "checkin", _record_checkin)
        event.listen(engine, "checkout", partial(_ping_if_idle, engine))
    return engine


def _prepare_postgresql(statement_seconds: int | None, connection: Any, _record: object) -> None:
    # Outside of a transaction, or the end of the first one would take the settings back.
    connection.autocommit = True
    # Policies make statements look dear, and to compile one takes a hundred times as long as to run it.
    connection.execute("SET jit = off")
    # Times come as `UtcDateTime` wants them; a list of 100 products has 800.
    connection.execute("SET timezone = 'UTC'")
    # What a transaction locked is free a minute after its machine went away without a word, not after hours.
    connection.execute(
        "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; "
        # Who went away amid an answer is not probed: what was sent waits for a word.
        "SET tcp_user_timeout = 60000"
    )
    if statement_seconds is not None:
        connection.execute(f"SET statement_timeout = {statement_seconds * 1000}")
        connection.execute(f"SET lock_timeout = {MAX_LOCK_WAIT_MILLISECONDS}")
    connection.autocommit = False


def _record_checkin(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info[_RETURNED_AT] = time.monotonic()


def _ping_if_idle(engine: Engine, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    # In place of `pool_pre_ping`, which asks each time: a server that went away was not in use a moment ago.
    returned_at = record.info.get(_RETURNED_AT)
    if returned_at is None or time.monotonic() - returned_at < PING_AFTER_IDLE_SECONDS:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        # All that are as old go with it, and a new one is made.
        raise InvalidatePoolError from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's driver would begin transactions by itself, late and without IMMEDIATE; None leaves it to
    # _begin_sqlite.
    connection.isolation_level = None
    cursor = connection.cursor()
    # First, so that the switch to WAL waits too when another process is making it.
    cursor.execute(f"PRAGMA busy_timeout={MAX_LOCK_WAIT_MILLISECONDS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that begins as reader and wants to write later fails at once when another one wrote in
    # between, busy timeout or not. So writers queue up before their first statement.
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
