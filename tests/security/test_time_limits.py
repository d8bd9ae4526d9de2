"""Time limits: a request that times out is rolled back, and a queued request that times out never starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from db.engine import build_engine
from db.models import Shooting
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.errors import build_problem
from handlers.pipeline.responding import respond
from studio.infrastructure.settings import InvalidSettings, Settings
from tests.api.conftest import CommittingServer
from tests.support.client import ClientResponse
from tests.support.rejections import Rejections

TIMEOUT_SECONDS = 0.4
NAME = "Given up"


@dataclass
class SlowHandler:
    """A handler that does its work and then blocks until it is released."""

    real: Any
    released: threading.Event = field(default_factory=threading.Event)
    calls: int = 0

    def __call__(self, **arguments: Any) -> Any:
        self.calls += 1
        response = self.real(**arguments)
        assert self.released.wait(20)
        return response


@pytest.fixture
def slow_handler(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlowHandler]:
    """Yield a handler of `create_shooting` that takes longer than the time limit of a request."""
    app = committing_server.client.app
    endpoint = app.endpoints["create_shooting"]
    handler = SlowHandler(endpoint._handler)
    monkeypatch.setattr(endpoint, "_handler", handler)
    monkeypatch.setattr(app.bridge, "seconds", TIMEOUT_SECONDS)
    pool = app.bridge.pool
    yield handler
    handler.released.set()
    wait_for_threads(pool)


def wait_for_threads(pool: ThreadPoolExecutor) -> None:
    """Wait until all threads of the pool have finished their current task: each must enter the barrier."""
    barrier = threading.Barrier(pool._max_workers)
    for entered in [pool.submit(barrier.wait, 30) for _ in range(pool._max_workers)]:
        entered.result()


def create_shooting(committing_server: CommittingServer, **headers: str) -> ClientResponse:
    """Return the response to a request that creates a shooting."""
    return committing_server.client("POST", "/shootings/", {"name": NAME}, headers=headers)


def count_shootings(committing_server: CommittingServer) -> int:
    """Return the number of stored shootings with the test's name."""
    with committing_server.database.transaction(write=False) as session:
        return session.scalar(select(func.count()).select_from(Shooting).where(Shooting.name == NAME)) or 0


def test_s19_a_request_that_takes_too_long_is_a_503_and_stores_nothing(
    committing_server: CommittingServer, slow_handler: SlowHandler, rejections: Rejections
) -> None:
    start = time.monotonic()
    response = create_shooting(committing_server)
    assert TIMEOUT_SECONDS <= time.monotonic() - start < TIMEOUT_SECONDS + 5
    assert (response.status, response.headers["retry-after"]) == (503, "5")
    assert response.json() == {
        "type": "http://localhost:8000/api/v1/problems/took_too_long",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The request took too long and was aborted",
        "code": "took_too_long",
        "request_id": response.headers["x-request-id"],
    }
    assert rejections.take() == {(503, "took_too_long", Limit.REQUEST_TIME)}
    slow_handler.released.set()
    wait_for_threads(committing_server.client.app.bridge.pool)
    assert (slow_handler.calls, count_shootings(committing_server)) == (1, 0)


def test_s19_the_idempotency_key_of_a_timed_out_request_can_be_reused(
    committing_server: CommittingServer, slow_handler: SlowHandler
) -> None:
    assert create_shooting(committing_server, **{"idempotency-key": "once"}).status == 503
    slow_handler.released.set()
    wait_for_threads(committing_server.client.app.bridge.pool)
    again = create_shooting(committing_server, **{"idempotency-key": "once"})
    assert (again.status, count_shootings(committing_server)) == (201, 1)
    assert "idempotency-replayed" not in again.headers


def test_s19_a_request_without_a_free_thread_in_time_is_dropped_and_never_starts(
    committing_server: CommittingServer, slow_handler: SlowHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = committing_server.client.app
    with ThreadPoolExecutor(1) as single_thread:
        monkeypatch.setattr(app.bridge, "pool", single_thread)
        responses = [create_shooting(committing_server) for _ in range(3)]
        slow_handler.released.set()
    assert [response.json()["code"] for response in responses] == ["took_too_long"] * 3
    assert slow_handler.calls == 1
    assert count_shootings(committing_server) == 0


def test_s19_a_request_that_has_started_to_commit_does_not_time_out(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that completes within the limit gets its response, even if the commit takes longer."""
    app = committing_server.client.app

    def respond_late(operation: Any, call: Any, response: Any) -> Any:
        encoded = respond(operation, call, response)
        monkeypatch.setattr(call.__class__, "try_complete", complete_slowly)
        return encoded

    def complete_slowly(call: Any) -> bool:
        is_first = call._completion_lock.acquire(blocking=False)
        if threading.current_thread() is not threading.main_thread():
            time.sleep(3 * TIMEOUT_SECONDS)
        return bool(is_first)

    monkeypatch.setattr("handlers.pipeline.endpoint.respond", respond_late)
    monkeypatch.setattr(app.bridge, "seconds", TIMEOUT_SECONDS)
    assert (create_shooting(committing_server).status, count_shootings(committing_server)) == (201, 1)


def test_s19_postgresql_statements_and_lock_waits_time_out(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.engine.MAX_LOCK_WAIT_MILLISECONDS", 300)
    engine = build_engine(database_url, pool_size=2, statement_seconds=1)
    try:
        start = time.monotonic()
        with (
            engine.connect() as connection,
            pytest.raises(OperationalError, match="statement timeout") as timed_out,
        ):
            connection.execute(text("SELECT pg_sleep(20)"))
        with engine.connect() as first, engine.connect() as second:
            first.execute(text("SELECT pg_advisory_xact_lock(4711)"))
            with pytest.raises(OperationalError, match="lock timeout") as locked:
                second.execute(text("SELECT pg_advisory_xact_lock(4711)"))
        assert time.monotonic() - start < 10
    finally:
        engine.dispose()
    for error, limit in ((timed_out.value, Limit.REQUEST_TIME), (locked.value, Limit.ROW_LOCKED)):
        problem = build_problem(error)
        assert (problem.status, problem.code, problem.detail, problem.limit) == (
            503,
            "unavailable",
            "The service is temporarily unavailable",
            limit,
        )


@pytest.mark.parametrize("name", ["REQUEST_SECONDS", "SLOW_CLIENT_SECONDS"])
def test_s19_time_limits_have_a_minimum_and_a_maximum(name: str) -> None:
    for invalid in ("0", "601", "-1", "1.5", "soon"):
        with pytest.raises(InvalidSettings, match=name):
            Settings.from_environment({name: invalid})
    assert getattr(Settings.from_environment({name: "7"}), name.lower()) == 7
