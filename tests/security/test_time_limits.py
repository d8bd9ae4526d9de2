"""A request gets its time and no more: what is given up is not kept, and what waits in line is let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from db.engines import make_engine
from db.models import Brand
from handlers.errors import problem_for
from studio.settings import Settings, SettingsRefused
from tests.api.conftest import Committed
from tests.contract.mini.asking import Reply
from tests.databases import on_postgresql

PATIENCE = 0.4
NAME = "Given up"


@dataclass
class Slow:
    """A handler that does its work and then stands still until it is let go."""

    real: Any
    go_on: threading.Event = field(default_factory=threading.Event)
    calls: int = 0

    def __call__(self, **arguments: Any) -> Any:
        self.calls += 1
        answer = self.real(**arguments)
        assert self.go_on.wait(20)
        return answer


@pytest.fixture
def slow(committed: Committed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """The handler of `create_brand`, which takes longer than a request may."""
    app = committed.client.app
    endpoint = app.endpoints["create_brand"]
    handler = Slow(endpoint._handler)
    monkeypatch.setattr(endpoint, "_handler", handler)
    monkeypatch.setattr(app.bridge, "seconds", PATIENCE)
    pool = app.bridge.pool
    yield handler
    handler.go_on.set()
    finish(pool)


def finish(pool: ThreadPoolExecutor) -> None:
    """Wait until the threads have ended what they were at."""
    wait([pool.submit(time.sleep, 0.02) for _ in range(2 * pool._max_workers)])


def create(committed: Committed, **headers: str) -> Reply:
    """The answer to a request that makes a brand."""
    return committed.client("POST", "/brands/", {"name": NAME}, headers=headers)


def brands(committed: Committed) -> int:
    """How many brands of the name were kept."""
    with committed.database.transaction(write=False) as session:
        return session.scalar(select(func.count()).select_from(Brand).where(Brand.name == NAME)) or 0


def test_s19_a_request_that_takes_too_long_is_given_up_and_leaves_nothing(
    committed: Committed, slow: Slow
) -> None:
    began = time.monotonic()
    reply = create(committed)
    assert PATIENCE <= time.monotonic() - began < PATIENCE + 5
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert reply.json() == {
        "type": "http://localhost:8000/api/v1/problems/took_too_long",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The request took too long and was given up",
        "code": "took_too_long",
        "request_id": reply.headers["x-request-id"],
    }
    slow.go_on.set()
    finish(committed.client.app.bridge.pool)
    assert (slow.calls, brands(committed)) == (1, 0)


def test_s19_a_key_of_what_was_given_up_is_as_good_as_new(committed: Committed, slow: Slow) -> None:
    assert create(committed, **{"idempotency-key": "once"}).status == 503
    slow.go_on.set()
    finish(committed.client.app.bridge.pool)
    again = create(committed, **{"idempotency-key": "once"})
    assert (again.status, brands(committed)) == (201, 1)
    assert "idempotency-replayed" not in again.headers


def test_s19_what_finds_no_thread_in_time_is_let_go_and_never_begins(
    committed: Committed, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = committed.client.app
    with ThreadPoolExecutor(1) as narrow:
        monkeypatch.setattr(app.bridge, "pool", narrow)
        replies = [create(committed) for _ in range(3)]
        slow.go_on.set()
    assert [reply.json()["code"] for reply in replies] == ["took_too_long"] * 3
    assert slow.calls == 1
    assert brands(committed) == 0


def test_s19_what_is_about_to_be_kept_is_not_given_up(
    committed: Committed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread decided before the time was over: its answer is awaited, however long the commit takes."""
    app = committed.client.app
    endpoint = app.endpoints["create_brand"]
    respond = endpoint._respond

    def respond_late(call: Any, answer: Any) -> Any:
        encoded = respond(call, answer)
        monkeypatch.setattr(call.__class__, "claim_ending", claim_and_dawdle)
        return encoded

    def claim_and_dawdle(call: Any) -> bool:
        first = call._ending.acquire(blocking=False)
        if threading.current_thread() is not threading.main_thread():
            time.sleep(3 * PATIENCE)
        return bool(first)

    monkeypatch.setattr(endpoint, "_respond", respond_late)
    monkeypatch.setattr(app.bridge, "seconds", PATIENCE)
    assert (create(committed).status, brands(committed)) == (201, 1)


@on_postgresql
def test_s19_a_statement_of_postgresql_has_an_end(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.engines.LONGEST_LOCK_MILLISECONDS", 300)
    engine = make_engine(database_url, pool_size=2, statement_seconds=1)
    try:
        began = time.monotonic()
        with (
            engine.connect() as connection,
            pytest.raises(OperationalError, match="statement timeout") as late,
        ):
            connection.execute(text("SELECT pg_sleep(20)"))
        with engine.connect() as one, engine.connect() as other:
            one.execute(text("SELECT pg_advisory_xact_lock(4711)"))
            with pytest.raises(OperationalError, match="lock timeout") as locked:
                other.execute(text("SELECT pg_advisory_xact_lock(4711)"))
        assert time.monotonic() - began < 10
    finally:
        engine.dispose()
    for error in (late.value, locked.value):
        problem = problem_for(error)
        assert (problem.status, problem.code, problem.detail) == (
            503,
            "unavailable",
            "The service is temporarily unavailable",
        )


@pytest.mark.parametrize("name", ["REQUEST_SECONDS", "SLOW_CLIENT_SECONDS"])
def test_s19_every_limit_of_time_has_bounds(name: str) -> None:
    for wrong in ("0", "601", "-1", "1.5", "soon"):
        with pytest.raises(SettingsRefused, match=name):
            Settings.from_environment({name: wrong})
    assert getattr(Settings.from_environment({name: "7"}), name.lower()) == 7
