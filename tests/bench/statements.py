"""How many statements a list costs, as PostgreSQL counts them."""

from __future__ import annotations

import time

import httpx
import sqlalchemy

from tests.bench.operations import Request, fetch, list_path
from tests.bench.rows import token_of
from tests.bench.serving import Serving, Stage, tracking

TIMES = 100
_COUNTED = sqlalchemy.text(
    # What runs beside the requests is run less often than they are, and so counts as nothing.
    "SELECT sum(calls / :times) FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid "
    "WHERE datname = :database"
)


def statements_per_list(stage: Stage, server: Serving, rows: int) -> int:
    """Return how many statements one list of this many rows takes, transactions' begin and end apart."""
    request = Request("GET", list_path(1, limit=rows), token_of(1))
    with httpx.Client(base_url=server.url) as client:
        _track(stage, "top")
        stage.run("SELECT pg_stat_statements_reset()")
        for _ in range(TIMES):
            fetch(client, request)
        _track(stage, "none")
    engine = sqlalchemy.create_engine(stage.admin_url())
    with engine.connect() as connection:
        found = connection.scalar(_COUNTED, {"times": TIMES, "database": server.database})
    engine.dispose()
    return int(found)


def _track(stage: Stage, what: str) -> None:
    stage.run(*tracking(what))
    # Every session reads the settings again before its next statement, once it has noticed the signal.
    time.sleep(0.2)
