"""Count the SQL statements of a list request with `pg_stat_statements`."""

from __future__ import annotations

import time

import httpx
import sqlalchemy

from tools.bench.environment import BenchEnvironment, BenchServer, statement_tracking
from tools.bench.operations import Request, fetch, list_path
from tools.bench.rows import build_token

TIMES = 100
_STATEMENT_COUNT = sqlalchemy.text(
    # Background statements run less often than once per request, so the integer division makes them 0.
    "SELECT sum(calls / :times) FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid "
    "WHERE datname = :database"
)


def count_statements_per_list(environment: BenchEnvironment, server: BenchServer, rows: int) -> int:
    """Return the number of statements of one list with this many rows, without BEGIN and COMMIT."""
    request = Request("GET", list_path(1, limit=rows), build_token(1))
    with httpx.Client(base_url=server.url) as client:
        _track(environment, "top")
        environment.run("SELECT pg_stat_statements_reset()")
        for _ in range(TIMES):
            fetch(client, request)
        _track(environment, "none")
    engine = sqlalchemy.create_engine(environment.admin_url())
    with engine.connect() as connection:
        count = connection.scalar(_STATEMENT_COUNT, {"times": TIMES, "database": server.database})
    engine.dispose()
    return int(count)


def _track(environment: BenchEnvironment, mode: str) -> None:
    environment.run(*statement_tracking(mode))
    # A session reads the settings again before its next statement, once it has received the signal.
    time.sleep(0.2)
