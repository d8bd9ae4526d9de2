"""The Celery worker process and the beat process. A worker runs the same code as the threads of a server.

The worker uses a pool of threads. OpenCV renders outside of the GIL, its own threads do not survive a fork,
and threads share the database connections.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from celery import Celery, signals
from celery.apps import worker as celery_worker
from celery.beat import EmbeddedService

from db.engine import build_engine
from db.session import Database
from studio.exports.content_credentials import load_signer
from studio.generations.worker.executor import ABORT_SECONDS, DRAIN_SECONDS, GenerationExecutor
from studio.imports.problems import FindViolations
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.mask_models import MaskModel, choose_mask_model
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage_backends import open_storage
from studio.infrastructure.telemetry.metrics import MetricsServer
from studio.infrastructure.telemetry.traces import Tracing
from studio.jobs.celery.app import MAINTAIN, WAKE, WORK, Scheduler, WakeupPublisher, build_celery
from studio.jobs.maintenance import MAINTENANCE_TASKS, Services, run_task
from studio.jobs.periodic import PeriodicTask
from studio.media.ladder import LadderBuilder
from studio.media.memory_gate import return_freed_memory
from studio.providers.openai_images import ImagesServer
from studio.queue.running import Worker
from studio.webhooks.dispatcher import WebhookDispatcher

logger = logging.getLogger(__name__)

MAINTENANCE_THREADS = 4
"""Threads for maintenance tasks, so that these never wait for a generation, an export, an import or a copy
of personal data."""
SELF_POLL_SECONDS = 10.0


class WorkerSlots:
    """The slots of one worker process: they bound the number of generations that run at the same time."""

    def __init__(self, executor: GenerationExecutor, count: int) -> None:
        self._executor, self._count = executor, count
        self._free = threading.Semaphore(count)

    def run(self) -> None:
        """Run available generations until there are none, or return at once if no slot is free."""
        if not self._free.acquire(blocking=False):
            # Nothing is lost: each busy slot continues with the next available generation.
            return
        try:
            while self._executor.run_next():
                pass
        finally:
            self._free.release()

    def drain(self) -> None:
        """Start no generation, and wait up to 8 s for running ones.

        Generations that take longer go back to the queue.
        """
        drain(self._executor.worker)
        deadline = time.monotonic() + DRAIN_SECONDS + ABORT_SECONDS
        for _ in range(self._count):
            self._free.acquire(timeout=max(0.0, deadline - time.monotonic()))


class MaintenanceRunner:
    """Runs maintenance tasks, each at most once at a time in this process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._locks = {task.name: threading.Lock() for task in MAINTENANCE_TASKS}
        self._tasks = {task.name: task for task in MAINTENANCE_TASKS}

    def run(self, name: str) -> None:
        """Run the task of this name unless it is running."""
        if name not in self._tasks:
            logger.warning("unknown maintenance task %r: beat runs another version", name)
        elif self._locks[name].acquire(blocking=False):
            try:
                run_task(self._tasks[name], self._services)
            finally:
                self._locks[name].release()


def build_services(settings: Settings, find_violations: FindViolations | None = None) -> Services:
    """Return the services of a worker process, with database connections of its own."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(build_engine(settings.database_url, settings.pool_size))
    http_client, sign_file = SafeHttpClient.from_settings(settings), load_signer(settings)
    worker = Worker(database, open_storage(settings), timedelta(seconds=settings.lease_seconds))
    return Services(settings, worker, http_client, sign_file, find_violations)


def run_worker(settings: Settings, with_beat: bool, find_violations: FindViolations | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT, and return its exit status.

    At the end, running generations get some seconds to finish and then go back to the queue.

    Args:
        settings: The settings of the process.
        with_beat: Run beat in a thread of this process.
        find_violations: Checks the rows of imports with the contract.
    """
    return_freed_memory()
    choose_mask_model(MaskModel.from_settings(settings))
    services = build_services(settings, find_violations)
    executor = GenerationExecutor(
        services.worker,
        max(1, settings.render_workers),
        settings.max_running_per_scope,
        services.http_client,
        images_server=ImagesServer.from_settings(settings),
    )
    slots = WorkerSlots(executor, settings.render_workers)
    app = build_celery(settings)
    _add_task(app, WORK, slots.run)
    _add_task(app, WAKE, partial(WakeupPublisher(app).notify_workers, services.database))
    _add_task(app, MAINTAIN, MaintenanceRunner(services).run)
    background_services: list[Any] = [
        Tracing(settings.otlp_endpoint, settings.service_name),
        MetricsServer(settings, services.database),
        WebhookDispatcher(settings, services.worker, services.http_client),
        LadderBuilder(services.storage),
        # Without the broker no message arrives.
        PeriodicTask("poll", slots.run, SELF_POLL_SECONDS),
    ]
    if with_beat:
        # Celery's default scheduler would write its state to a file.
        background_services.append(EmbeddedService(app, thread=True, scheduler_cls=Scheduler))
    # Signals hold weak references: this name keeps the receiver alive.
    drain_worker = partial(drain, services.worker)
    signals.worker_shutting_down.connect(drain_worker)
    signals.worker_ready.connect(_log_ready)
    # Celery would print "Warm shutdown" as text between the lines of the log.
    celery_worker.safe_say = _log_message
    for service in background_services:
        service.start()
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
        slots.drain()
        for service in reversed(background_services):
            service.stop()
        executor.close()
        services.database.dispose()


def run_beat(settings: Settings) -> int:
    """Run beat until SIGTERM or SIGINT, and return its exit status. It needs no database."""
    logger.info("beat starts")
    build_celery(settings).Beat(quiet=True, loglevel=settings.log_level).run()
    return 0


def _add_task(app: Celery, name: str, work: Callable[..., object]) -> None:
    def task(*args: str) -> None:
        work(*args)

    app.task(task, name=name)


def _log_ready(**_: object) -> None:
    logger.info("the worker is ready")


def _log_message(message: str, _stream: object = None) -> None:
    logger.info(message)


def drain(worker: Worker, **_: object) -> None:
    """Lease nothing from now on, and abort work that runs after `DRAIN_SECONDS`.

    It returns at once, because Celery calls it from a signal.
    """
    if worker.stopping.is_set():
        return
    worker.stopping.set()
    timer = threading.Timer(DRAIN_SECONDS, worker.abort)
    timer.daemon = True
    timer.start()
