"""The short form of `make faults`: Redis is emptied, a worker hangs and another one is killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from db.base import utc_now
from studio.jobs.celery.app import QUEUE, WakeupPublisher, build_celery
from studio.settings import Settings
from tests.e2e.server import running_server
from tests.resilience.processes import (
    RedisServer,
    build_environment,
    has_running_generation,
    run_jobs_processes,
    wait_until,
)
from tests.resilience.workload import (
    AcceptedGenerations,
    count_ended,
    evaluate,
    make_tenants,
    open_database,
    request_all,
)
from tests.support.databases import on_postgresql

GENERATIONS, TENANTS = 12, 3


@on_postgresql
def test_a_flushed_redis_a_paused_and_a_killed_worker_lose_and_double_nothing(
    broker: RedisServer, own_database_url: str, tmp_path: Path
) -> None:
    environment = build_environment(tmp_path, own_database_url, broker, LEASE_SECONDS="2")
    with (
        running_server(tmp_path, **environment) as server,
        run_jobs_processes(tmp_path, environment, "worker", "worker --beat") as (first, second),
        open_database(own_database_url) as database,
    ):
        tenants = make_tenants(own_database_url, tmp_path / "media", TENANTS, GENERATIONS // TENANTS)
        wait_until(lambda: first.is_ready() and second.is_ready(), "the workers are ready")
        accepted, began = AcceptedGenerations(), utc_now()
        ordering = threading.Thread(target=request_all, args=(server.origin, tenants, 1, accepted))
        ordering.start()
        wait_until(lambda: has_running_generation(database, first), "the first worker has work in hand")
        first.pause()
        broker.flush()
        wait_until(lambda: count_ended(database, accepted) >= GENERATIONS // 2, "half of it is done")
        wait_until(lambda: not has_running_generation(database, first), "what it had is up for others")
        first.resume()
        second.kill()
        second.start()
        ordering.join()
        wait_until(lambda: count_ended(database, accepted) == GENERATIONS, "all is done")
        verdict = evaluate(own_database_url, tenants, accepted, began)
    assert (verdict.accepted, verdict.completed) == (GENERATIONS, GENERATIONS), verdict.table()
    assert verdict.is_good, verdict.table()


class PendingWorkDatabase:
    """A database in which so much waits."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting


@pytest.fixture
def publisher(broker: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[WakeupPublisher]:
    """A publisher of a server whose database reports a given number of pending generations."""
    broker.flush()
    monkeypatch.setattr(
        "studio.jobs.celery.app.queue", SimpleNamespace(count_available=lambda rows, _: rows.waiting)
    )
    app = build_celery(Settings(celery_broker_url=broker.url))
    yield WakeupPublisher(app)
    app.close()


def test_as_many_workers_are_called_as_there_is_work_and_messages_do_not_pile_up(
    broker: RedisServer, publisher: WakeupPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.jobs.celery.app.MAX_WAITING", 5)
    publisher.notify_workers(PendingWorkDatabase(3))
    assert broker.count_messages(QUEUE) == 3
    publisher.notify_workers(PendingWorkDatabase(9))
    assert broker.count_messages(QUEUE) == 5


def test_a_broker_that_is_away_is_told_once_and_found_again(
    broker: RedisServer, publisher: WakeupPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "studio")
    broker.stop()
    for _ in range(3):
        assert not publisher.send("work")
    broker.start()
    assert publisher.send("work")
    assert publisher.send("work")
    assert broker.count_messages(QUEUE) == 2
    told = [record.getMessage()[:22] for record in caplog.records if record.name.startswith("studio")]
    assert told == ["broker unavailable, wo", "broker available again"]
