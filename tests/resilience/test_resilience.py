"""A short version of `make faults`: Redis is flushed, one worker is paused and another one is killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from db.base import utc_now
from db.session import Database
from studio.infrastructure.settings import Settings
from studio.jobs.celery.app import QUEUE, WakeupPublisher, build_celery
from tests.resilience.workload import (
    AcceptedGenerations,
    count_ended,
    evaluate,
    has_running_generation,
    make_tenants,
    open_database,
    request_all,
)
from tools.servers.processes import (
    RedisServer,
    build_environment,
    report_logs,
    run_jobs_processes,
    wait_until,
)
from tools.servers.server import running_server

GENERATIONS, TENANTS = 6, 3
RENDER_TIMEOUT_SECONDS = 180


@pytest.mark.slow("`make faults` runs more of the same")
def test_flushing_redis_and_pausing_and_killing_workers_loses_and_duplicates_no_generation(
    broker: RedisServer, own_database_url: str, tmp_path: Path
) -> None:
    environment = build_environment(tmp_path, own_database_url, broker, LEASE_SECONDS="2")
    with (
        report_logs(tmp_path),
        running_server(tmp_path, **environment) as server,
        run_jobs_processes(tmp_path, environment, "worker", "worker --beat") as (first, second),
        open_database(own_database_url) as database,
    ):
        tenants = make_tenants(own_database_url, tmp_path / "media", TENANTS, GENERATIONS // TENANTS)
        wait_until(lambda: first.is_ready() and second.is_ready(), "the workers are ready")
        accepted, began = AcceptedGenerations(), utc_now()
        requesting = threading.Thread(target=request_all, args=(server.origin, tenants, 1, accepted))
        requesting.start()
        wait_until(lambda: has_running_generation(database, first), "the first worker has a lease")
        first.pause()
        broker.flush()
        wait_until_ended(GENERATIONS // 2, database, accepted)
        wait_until(lambda: not has_running_generation(database, first), "its lease has expired")
        first.resume()
        second.kill()
        second.start()
        requesting.join()
        wait_until_ended(GENERATIONS, database, accepted)
        verdict = evaluate(own_database_url, tenants, accepted, began)
    assert (verdict.accepted, verdict.completed) == (GENERATIONS, GENERATIONS), verdict.table()
    assert verdict.is_good, verdict.table()


def wait_until_ended(count: int, database: Database, accepted: AcceptedGenerations) -> None:
    """Wait until `count` of the accepted generations have ended."""
    wait_until(
        lambda: count_ended(database, accepted) >= count,
        f"{count} generations have ended",
        RENDER_TIMEOUT_SECONDS,
        lambda: f"{count_ended(database, accepted)} of {len(accepted.generation_ids)} accepted ones have",
    )


def test_a_condition_that_never_holds_fails_with_the_state_and_the_logs(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(100)]
    (tmp_path / "worker.log").write_text("\n".join(lines))
    message = r"after 0 s still not: 6 have ended \(5 have\)"
    with pytest.raises(AssertionError, match=message) as failed, report_logs(tmp_path):
        wait_until(lambda: False, "6 have ended", 0, lambda: "5 have")
    (note,) = failed.value.__notes__
    assert note.startswith(f"last of 100 lines of {tmp_path / 'worker.log'}:\nline 60\n")
    assert note.endswith("line 99")


@pytest.mark.slow("it starts a process")
def test_a_worker_that_does_not_start_fails_with_its_log(tmp_path: Path) -> None:
    message = "ended with status 2: Not started: CELERY_BROKER_URL"
    with (
        run_jobs_processes(tmp_path, {"CELERY_BROKER_URL": ""}, "worker") as (worker,),
        pytest.raises(AssertionError, match=message),
    ):
        wait_until(worker.is_ready, "the worker is ready")


class PendingWorkDatabase:
    """A stand-in for a database with a number of available generations."""

    def __init__(self, available: int) -> None:
        self.available = available


@pytest.fixture
def publisher(broker: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[WakeupPublisher]:
    """Yield a publisher that works with `PendingWorkDatabase`."""
    broker.flush()
    for queue, is_counted in (("GENERATIONS", True), ("CUTOUTS", False)):
        monkeypatch.setattr(
            f"studio.jobs.celery.app.{queue}",
            SimpleNamespace(
                count_available=lambda database, _, counted=is_counted: database.available * counted
            ),
        )
    app = build_celery(Settings(celery_broker_url=broker.url))
    yield WakeupPublisher(app)
    app.close()


def test_one_message_is_sent_per_available_generation_until_the_queue_is_full(
    broker: RedisServer, publisher: WakeupPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.jobs.celery.app.MAX_WAITING", 5)
    publisher.notify_workers(PendingWorkDatabase(3))
    assert broker.count_messages(QUEUE) == 3
    publisher.notify_workers(PendingWorkDatabase(9))
    assert broker.count_messages(QUEUE) == 5


def test_an_unavailable_broker_is_logged_once_and_found_again(
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
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("studio")]
    assert [message.partition(",")[0] for message in messages] == [
        "broker unavailable",
        "broker available again",
    ]
