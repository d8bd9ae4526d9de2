"""Background threads survive a database that cannot be used, and log it as a warning without a traceback.

The server's log may contain no error after a contract run, and a busy machine is no defect.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.engine import build_engine, is_database_unavailable
from db.session import Database
from studio.generations.worker import executor
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk
from studio.jobs.periodic import PeriodicTask
from studio.webhooks import dispatcher
from tests.support.concurrency import wait_for
from tests.support.queues import build_worker
from tests.support.servers.webhook_receiver import (
    SETTINGS,
    WebhookReceiver,
    get_only_delivery,
    make_endpoint,
    publish_event,
)
from tools.servers.databases import UNREACHABLE_URL

LOCKED = OperationalError("UPDATE", {}, Exception("lock timeout"))
Log = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    """Return a function that lists the level and the first line of each record."""

    def read() -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage().splitlines()[0]) for record in caplog.records]

    caplog.set_level(logging.WARNING)
    return read


def test_a_locked_database_delays_a_webhook_and_is_logged_as_a_warning(
    own_database_url: str, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr("db.engine.MAX_LOCK_WAIT_MILLISECONDS", 50)
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 0.05)
    database = Database(build_engine(own_database_url, statement_seconds=30))
    with database.transaction(write=True):
        endpoint = make_endpoint(receiver)
    publish_event(database, endpoint)
    running = dispatcher.WebhookDispatcher(
        SETTINGS, build_worker(database), SafeHttpClient([receiver.recorder.host])
    )
    with database.transaction(write=True) as writing:
        writing.execute(text("LOCK TABLE webhook_deliveries IN ACCESS EXCLUSIVE MODE"))
        running.start()
        wait_for(log)
        assert receiver.ids == []
    wait_for(lambda: get_only_delivery(database).status == "delivered")
    running.stop()
    database.dispose()
    assert len(receiver.ids) == 1
    assert {level for level, _ in log()} == {"WARNING"}
    assert all(line.startswith("webhook dispatcher has no database, retrying: (") for _, line in log())


def run_dispatcher(monkeypatch: pytest.MonkeyPatch, error: Exception, called: threading.Event) -> None:
    """Let a webhook dispatcher fail once, then run it until it works."""
    failures = [error]

    def send_next(*_arguments: object) -> bool:
        if failures:
            raise failures.pop()
        called.set()
        return False

    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(dispatcher, "send_next", send_next)
    running = dispatcher.WebhookDispatcher(
        SETTINGS, build_worker(Database(build_engine(UNREACHABLE_URL))), SafeHttpClient()
    )
    running.start()
    assert called.wait(20)
    running.stop()


def run_generation_worker(monkeypatch: pytest.MonkeyPatch, error: Exception, called: threading.Event) -> None:
    """Let a generation worker fail once, then run it until it works."""
    failures = [error]

    def run_next(_executor: executor.GenerationExecutor) -> bool:
        if failures:
            raise failures.pop()
        called.set()
        return False

    monkeypatch.setattr(executor, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(executor.GenerationExecutor, "run_next", run_next)
    database = Database(build_engine(UNREACHABLE_URL))
    running = executor.GenerationWorkers(build_worker(database, LocalDisk(Path())), 1)
    running.start()
    assert called.wait(20)
    running.stop()


def run_periodic_task(_monkeypatch: pytest.MonkeyPatch, error: Exception, called: threading.Event) -> None:
    """Let a periodic task fail once, then run it until it works."""
    failures = [error]

    def work() -> None:
        if failures:
            raise failures.pop()
        called.set()

    running = PeriodicTask("cleanup", work, 0.01)
    running.start()
    assert called.wait(20)
    running.stop()


@pytest.mark.parametrize(
    ("run", "outage", "failure"),
    [
        (
            run_dispatcher,
            "webhook dispatcher has no database, retrying: (builtins.Exception) lock timeout",
            "webhook dispatcher failed, next attempt in 0 s",
        ),
        (
            run_generation_worker,
            "generation worker has no database or storage, retrying: (builtins.Exception) lock timeout",
            "a generation worker failed",
        ),
        (
            run_periodic_task,
            "cleanup has no database or storage, next run in 0.01 s: (builtins.Exception) lock timeout",
            "cleanup failed, next run in 0.01 s",
        ),
    ],
)
def test_a_background_thread_survives_an_outage_and_a_defect_and_logs_them_differently(
    run: Callable[[pytest.MonkeyPatch, Exception, threading.Event], None],
    outage: str,
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    log: Log,
) -> None:
    run(monkeypatch, LOCKED, threading.Event())
    assert log() == [("WARNING", outage)]
    assert caplog.records[0].exc_info is None
    caplog.clear()
    run(monkeypatch, ValueError("a defect"), threading.Event())
    assert log() == [("ERROR", failure)]
    assert "ValueError: a defect" in caplog.text


@pytest.mark.parametrize(
    ("error", "is_unavailable"),
    [
        (LOCKED, True),
        (PoolTimeout("QueuePool limit of size 10 overflow 0 reached"), True),
        (ProgrammingError("SELECT", {}, Exception('relation "brands" does not exist')), False),
        (ValueError("lock timeout"), False),
    ],
)
def test_a_defect_is_not_taken_for_an_outage_of_the_database(error: Exception, is_unavailable: bool) -> None:
    assert is_database_unavailable(error) == is_unavailable
