"""A database server that accepts connections and never answers costs seconds, not minutes."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from db.engine import CONNECT_SECONDS, build_engine
from db.session import Database
from handlers.contract.errors import TookTooLong
from handlers.pipeline.admission.concurrency import CredentialOwners
from handlers.pipeline.errors import build_problem


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # The shortest timeout that psycopg knows.
        yield f"postgresql://user@127.0.0.1:{listener.getsockname()[1]}/studio?connect_timeout=2"


def connect(url: str) -> float:
    """Return how many seconds a failing attempt to connect takes."""
    engine = build_engine(url, pool_size=1)
    began = time.monotonic()
    with pytest.raises(OperationalError) as error:
        engine.connect()
    problem = build_problem(error.value)
    assert (problem.status, problem.code) == (503, "unavailable")
    return time.monotonic() - began


@pytest.mark.slow("it waits for the timeouts")
def test_s19_an_attempt_to_connect_ends_after_seconds(silent_url: str) -> None:
    assert 1.5 < connect(silent_url) < CONNECT_SECONDS
    default = silent_url.partition("?")[0]
    assert CONNECT_SECONDS - 0.5 < connect(default) < 2 * CONNECT_SECONDS


@pytest.mark.parametrize(("query", "seconds"), [("", str(CONNECT_SECONDS)), ("?connect_timeout=30", "30")])
def test_s19_the_database_url_can_set_another_time_to_connect(query: str, seconds: str) -> None:
    engine = build_engine(f"postgresql://user@db.example/studio{query}", pool_size=1)
    arguments: dict[str, Any] = {}

    def reject(_dialect: object, _record: object, _positional: object, named: dict[str, Any]) -> None:
        arguments.update(named)
        raise ConnectionRefusedError

    event.listen(engine, "do_connect", reject)
    with pytest.raises(ConnectionRefusedError):
        engine.connect()
    assert arguments["connect_timeout"] == seconds


def test_s19_the_user_of_a_key_is_looked_up_within_a_time_limit(silent_url: str) -> None:
    database = Database(build_engine(silent_url, pool_size=1))
    owners = CredentialOwners(database.transaction, seconds=0.1)

    async def find_twice() -> None:
        for _ in range(2):  # the second one waits for the thread of the first one
            with pytest.raises(TookTooLong):
                await owners.find_user_id({"api_key_id": str(uuid.uuid4())})

    began = time.monotonic()
    asyncio.run(find_twice())
    assert time.monotonic() - began < 1.5
