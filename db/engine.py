"""Build SQLAlchemy engines for PostgreSQL and configure each new connection.

This module knows no model and no role, and reads no environment: the URL is always an argument.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

# The import registers the dialect.
from db.dialect import set_at_begin
from db.fast_path.json_columns import load_json
from db.fast_path.psycopg_cursor import LazyDescriptionCursor

MAX_LOCK_WAIT_MILLISECONDS = 15_000
"""How long a statement waits for the lock of another transaction."""
POOL_TIMEOUT_SECONDS = 15
CONNECT_SECONDS = 5
"""How long an attempt to connect takes, unless the URL has a `connect_timeout`."""
PING_AFTER_IDLE_SECONDS = 1.0
"""A connection that was used more recently than this is assumed to be alive."""

# `UtcDateTime` relies on UTC and skips the conversion: a list of 100 products has 800 timestamps. PgBouncer
# sets the time zone of its client on the connection that it chooses.
# If a server's machine disappears, PostgreSQL releases its locks after a minute instead of two hours.
# Keepalive probes are not sent while unacknowledged data is in flight, which the user timeout covers.
SESSION_SETTINGS = (
    "SET timezone = 'UTC'; "
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 60000"
)

_RETURNED_AT = "returned_at"


def build_engine(url: str, pool_size: int = 10, statement_seconds: int | None = None) -> Engine:
    """Return an engine with at most `pool_size` connections.

    Args:
        url: An SQLAlchemy URL. `postgresql://` selects psycopg 3, as `postgresql+psycopg://` does. Its query
            sets parameters of libpq.
        statement_seconds: The statement timeout. It also limits the wait for a lock to
            `MAX_LOCK_WAIT_MILLISECONDS`. None sets no limit.
    """
    parsed_url = make_url(url)
    if parsed_url.drivername in ("postgresql", "postgres"):
        parsed_url = parsed_url.set(drivername="postgresql+psycopg")
    # If the machine of PostgreSQL disappears, a statement fails after a minute instead of two hours.
    defaults = {
        "connect_timeout": str(CONNECT_SECONDS),
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    engine = create_engine(
        parsed_url.set(query={**defaults, **parsed_url.query}),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        # Database errors are logged with their statement. Parameters may hold personal data or secrets.
        hide_parameters=True,
        connect_args={"cursor_factory": LazyDescriptionCursor},
        json_deserializer=load_json,
    )
    # Row-level security makes the planner overestimate costs, which triggers JIT compilation. Compiling takes
    # about a hundred times as long as running these statements.
    set_at_begin(engine, "jit", "off")
    if statement_seconds is not None:
        set_at_begin(engine, "statement_timeout", f"{statement_seconds}s")
        set_at_begin(engine, "lock_timeout", f"{MAX_LOCK_WAIT_MILLISECONDS}ms")
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "checkin", _record_checkin)
    event.listen(engine, "checkout", partial(_ping_if_idle, engine))
    return engine


def _prepare_connection(connection: Any, _record: object) -> None:
    # A SET inside a transaction is undone when that transaction rolls back.
    connection.autocommit = True
    connection.execute(SESSION_SETTINGS)
    connection.autocommit = False


def _record_checkin(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info[_RETURNED_AT] = time.monotonic()


def _ping_if_idle(engine: Engine, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    # This replaces `pool_pre_ping`, which costs one round trip per checkout even on a busy server.
    returned_at = record.info.get(_RETURNED_AT)
    if returned_at is None or time.monotonic() - returned_at < PING_AFTER_IDLE_SECONDS:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        # The pool drops all older connections too: the database restarted, so they are dead as well.
        raise InvalidatePoolError from error


def is_lock_timeout(error: DBAPIError) -> bool:
    """Return whether a statement gave up waiting for a lock (SQLSTATE 55P03)."""
    return getattr(error.orig, "sqlstate", None) == "55P03"


def is_deadlock(error: DBAPIError) -> bool:
    """Return whether PostgreSQL ended a statement because two sessions waited for each other (40P01)."""
    return getattr(error.orig, "sqlstate", None) == "40P01"


def is_database_unavailable(error: Exception) -> bool:
    """Return whether the database is unreachable, locked or out of connections: a retry may succeed."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, (OperationalError, InterfaceError, PoolTimeout))
