"""Change where pages of the change feed end, for tests that share a PostgreSQL server with others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import BigInteger, literal_column

from db.change_feed import queries

BEHIND_RUNNING = "pg_current_xact_id()::text::bigint + 1"
"""Behind the running transaction, which thus sees its own changes."""
BEHIND_ENDED = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
"""Behind all transactions that have ended, for tests in whose database no transaction is open."""
# Of the open transactions of the snapshot, those of other databases are left out. Only those have a lock of a
# session of another database. One that has ended meanwhile has none, and is kept, so
# a page may end too early, but never too late.
OLDEST_OF_THIS_DATABASE = """
    coalesce((
        SELECT min(xid::text::bigint) FROM pg_snapshot_xip(pg_current_snapshot()) AS xid
        WHERE NOT EXISTS (
            SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'transactionid' AND granted AND mode = 'ExclusiveLock'
            AND transactionid = xid::xid AND datname <> current_database()
        )
    ), pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
"""
"""At the oldest open transaction, as in production, but of this database only: other tests keep some open."""


@contextmanager
def pages_end_at(xid: str) -> Iterator[None]:
    """Let pages of the feed end before a transaction within the block.

    Args:
        xid: The SQL expression of the id of the transaction.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "_OLDEST_OPEN_XID", literal_column(f"({xid})", BigInteger))
        _clear_caches()
        yield
    _clear_caches()


def _clear_caches() -> None:
    queries._build_page.cache_clear()
    queries.latest_query.cache_clear()
