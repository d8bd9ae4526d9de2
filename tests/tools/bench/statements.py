"""How many statements a list costs, as PostgreSQL counts them."""

from __future__ import annotations

import time

import httpx
import sqlalchemy

from tests.tools.bench.environment import BenchEnvironment, BenchServer, statement_tracking
from tests.tools.bench.operations import Request, fetch, list_path
from tests.tools.bench.rows import build_token

TIMES = 100
_STATEMENT_COUNT = sqlalchemy.text(
    # What runs beside the requests is run less often than they are, and so counts as nothing.
    "SELECT sum(calls / :times) FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid "
    "WHERE datname = :database"
)


def count_statements_per_list(environment: BenchEnvironment, server: BenchServer, rows: int) -> int:
    """Return how many statements one list of this many rows takes, transactions' begin and end apart."""
    request = Request("GET", list_path(1, limit=rows), build_token(1))
    with httpx.Client(base_url=server.url) as client:
        _track(environment, "top")
        environment.run("SELECT pg_stat_statements_reset()")
        for _ in range(TIMES):
            fetch(client, request)
        _track(environment, "none")
    engine = sqlalchemy.create_engine(environment.admin_url())
    with engine.connect() as connection:
        found = connection.scalar(_STATEMENT_COUNT, {"times": TIMES, "database": server.database})
    engine.dispose()
    return int(found)


def _track(environment: BenchEnvironment, mode: str) -> None:
    environment.run(*statement_tracking(mode))
    # Every session reads the settings again before its next statement, once it has noticed the signal.
    time.sleep(0.2)
