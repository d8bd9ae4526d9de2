"""A worker process and a beat process: Celery around the same code that a server's own threads run.

The pool is one of threads: painting is done by threads of its own outside of Python's lock, OpenCV's own
threads do not survive a fork, and connections to the database need not be made anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery, signals
from celery.beat import EmbeddedService

from db.engine import build_engine
from db.session import Database
from studio.generations.worker.executor import GenerationExecutor
from studio.generations.worker.threads import ABORT_SECONDS, DRAIN_SECONDS
from studio.http_client import SafeHttpClient
from studio.jobs.celery.app import MAINTAIN, WAKE, WORK, Scheduler, WakeupPublisher, build_celery
from studio.jobs.maintenance import MAINTENANCE_TASKS, Services
from studio.jobs.periodic import PeriodicTask
from studio.media.backends import open_storage
from studio.settings import Settings
from studio.telemetry.metrics import MetricsServer
from studio.telemetry.traces import Tracing
from studio.webhooks.dispatcher import WebhookDispatcher

logger = logging.getLogger(__name__)

MAINTENANCE_THREADS = 2
"""Threads of a worker beside those that wait for pictures, so that upkeep never waits behind them."""
SELF_POLL_SECONDS = 10.0


class WorkerSlots:
    """The hands of one worker process: so many generations at a time, however many messages come."""

    def __init__(self, executor: GenerationExecutor, count: int) -> None:
        self._executor, self._count = executor, count
        self._free = threading.Semaphore(count)

    def run(self) -> None:
        """Carry out what there is until there is nothing; at once done when all hands are busy."""
        if not self._free.acquire(blocking=False):
            # No loss: each busy hand looks for more when it is done.
            return
        try:
            while self._executor.run_next():
                pass
        finally:
            self._free.release()

    def drain(self) -> None:
        """Begin nothing more, and return when nothing is in hand, at the latest after 8 s.

        What is not finished by then is back in the queue.
        """
        drain(self._executor)
        deadline = time.monotonic() + DRAIN_SECONDS + ABORT_SECONDS
        for _ in range(self._count):
            self._free.acquire(timeout=max(0.0, deadline - time.monotonic()))


class MaintenanceRunner:
    """Does what is on the table of upkeep, each thing once at a time in this process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._locks = {each.name: threading.Lock() for each in MAINTENANCE_TASKS}
        self._tasks = {each.name: each.run for each in MAINTENANCE_TASKS}

    def run(self, name: str) -> None:
        """Do the thing of this name unless it is being done."""
        if name not in self._tasks:
            logger.warning("beat asks for %r, which this version does not know", name)
        elif self._locks[name].acquire(blocking=False):
            try:
                self._tasks[name](self._services)
            finally:
                self._locks[name].release()


def build_services(settings: Settings) -> Services:
    """The workplace of these settings, with connections of its own."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(build_engine(settings.database_url, settings.pool_size))
    return Services(settings, database, open_storage(settings), SafeHttpClient.from_settings(settings))


def run_worker(settings: Settings, with_beat: bool) -> int:
    """Work until SIGTERM or SIGINT; running work gets seconds to finish and then goes back to the queue."""
    at = build_services(settings)
    workshop = GenerationExecutor(
        at.database,
        at.storage,
        max(1, settings.render_workers),
        settings.lease_seconds,
        settings.max_running_per_scope,
        at.http_client,
    )
    hands = WorkerSlots(workshop, settings.render_workers)
    app = build_celery(settings)
    _add_task(app, WORK, hands.run)
    _add_task(app, WAKE, partial(WakeupPublisher(app).notify_workers, at.database))
    _add_task(app, MAINTAIN, MaintenanceRunner(at).run)
    parts: list[Any] = [
        Tracing(settings.otlp_endpoint, settings.service_name),
        MetricsServer(settings.metrics_host, settings.metrics_port, at.database, settings.database_url),
        WebhookDispatcher(settings, at.database, at.http_client),
        # While the broker is away nobody is called.
        PeriodicTask("looking without being called", hands.run, SELF_POLL_SECONDS),
    ]
    if with_beat:
        # Without the class it would take Celery's own, which keeps files.
        parts.append(EmbeddedService(app, thread=True, scheduler_cls=Scheduler))
    draining = partial(drain, workshop)
    signals.worker_shutting_down.connect(draining)
    signals.worker_ready.connect(_log_ready)
    for part in parts:
        part.start()
    try:
        worker = app.Worker(
            pool_cls="threads",
            concurrency=settings.render_workers + MAINTENANCE_THREADS,
            loglevel=settings.log_level,
            quiet=True,
            without_gossip=True,
            without_heartbeat=True,
            without_mingle=True,
        )
        worker.start()
        return worker.exitcode or 0
    finally:
        hands.drain()
        for part in reversed(parts):
            part.stop()
        workshop.close()
        at.database.dispose()


def run_beat(settings: Settings) -> int:
    """Send what is due until SIGTERM or SIGINT; it needs no database."""
    build_celery(settings).Beat(quiet=True, loglevel=settings.log_level).run()
    return 0


def _add_task(app: Celery, name: str, work: Callable[..., object]) -> None:
    def task(*args: str) -> None:
        work(*args)

    app.task(task, name=name)


def _log_ready(**_: object) -> None:
    logger.info("the worker is ready")


def drain(executor: GenerationExecutor, **_: object) -> None:
    """Claim nothing more, and give back what is not finished in time. Called by a signal: it only begins."""
    if executor.stopping.is_set():
        return
    executor.stopping.set()
    timer = threading.Timer(DRAIN_SECONDS, executor.aborting.set)
    timer.daemon = True
    timer.start()
