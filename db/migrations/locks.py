"""Let migrations wait for a lock for less than a second, and find the sessions that block them.

A statement that waits for a table's lock also blocks all later statements on that table, so it must not wait
long. The migration fails instead, the requests that waited go on, and it is tried again.

A revision that changes two tables can wait for a request that has used the second one and waits for the first
one. PostgreSQL looks for such deadlocks when a session has waited for `deadlock_timeout`, and ends one of the
two. Migrations give up before that, so that the request is served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db.engine import is_deadlock, is_lock_timeout

LOCK_TIMEOUT_MILLISECONDS = 900
"""Less than `deadlock_timeout`, which is a second unless the operator has changed it."""
POLL_SECONDS = 0.5
MAX_ATTEMPTS = 10
PAUSE_SECONDS = 3.0
"""Between two attempts. Ten attempts take about half a minute."""

# Servers that start at the same time must not migrate at the same time. The number is arbitrary, but it is
# fixed and differs from `_ADVISORY_LOCK` of `db/row_counts/queries.py`.
MIGRATION_LOCK = 5_172_001

# Without their statements, which can contain personal data.
_BLOCKERS = text("""
SELECT pid, usename, application_name, coalesce(host(client_addr), 'a local socket') AS address, state,
    to_char(xact_start, 'HH24:MI:SS TZ') AS since
FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(:pid)) ORDER BY xact_start
""")


class MigrationBlocked(Exception):
    """Another session holds a lock that a migration needs, or waits for one of it. The message names it."""


def acquire_migration_lock(guard: Connection) -> None:
    """Wait until no other process migrates; the lock ends with the session of `guard`.

    Args:
        guard: A connection in autocommit mode. CREATE INDEX CONCURRENTLY waits for all older transactions,
            and a statement that waits for a lock is one, so neither the guard nor a wait may be one.
    """
    while not guard.scalar(text(f"SELECT pg_try_advisory_lock({MIGRATION_LOCK})")):
        time.sleep(POLL_SECONDS)


@contextmanager
def report_blockers(guard: Connection, pid: int | None) -> Iterator[None]:
    """Watch what a backend waits for within the block.

    Args:
        guard: A connection in autocommit mode that nothing else uses.
        pid: The process id of the backend.

    Raises:
        MigrationBlocked: A statement of the block waited too long for a lock, or in a deadlock.
    """
    stopped = threading.Event()
    blockers: list[str] = []

    def watch() -> None:
        while not stopped.wait(POLL_SECONDS):
            found = [
                f"session {row.pid} (user {row.usename}, application {row.application_name or 'unknown'}, "
                f"from {row.address}, {row.state}, transaction since {row.since}; to end it: "
                f"SELECT pg_terminate_backend({row.pid}))"
                for row in guard.execute(_BLOCKERS, {"pid": pid})
            ]
            # Kept when the wait has ended: the error comes after it.
            blockers[:] = found or blockers

    watcher = threading.Thread(target=watch, name="migration-blockers", daemon=True)
    watcher.start()
    try:
        yield
    except DBAPIError as error:
        if not (is_lock_timeout(error) or is_deadlock(error)):
            raise
        holders = "; ".join(blockers) or "a session that has ended meanwhile"
        reason = "is in a deadlock with" if is_deadlock(error) else "waits for a lock of"
        raise MigrationBlocked(f"The migration {reason} {holders}") from error
    finally:
        stopped.set()
        watcher.join()
