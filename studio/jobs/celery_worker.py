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

from db.engines import make_engine
from db.session import Database
from studio.jobs.celery_app import KEEP_UP, WAKE, WORK, Courier, Scheduler, make_celery
from studio.jobs.repeating import Repeating
from studio.jobs.upkeep import UPKEEP, Workplace
from studio.jobs.workers import DRAIN_SECONDS, DROP_SECONDS
from studio.jobs.workshop import Workshop
from studio.media.backends import open_storage
from studio.outbound import Outbound
from studio.settings import Settings
from studio.telemetry.metrics import MetricsPort
from studio.telemetry.traces import Tracing
from studio.webhooks.senders import WebhookSenders

logger = logging.getLogger(__name__)

KEEPERS = 2
"""Threads of a worker beside those that wait for pictures, so that upkeep never waits behind them."""
OWN_LOOK_SECONDS = 10.0


class Hands:
    """The hands of one worker process: so many generations at a time, however many messages come."""

    def __init__(self, workshop: Workshop, count: int) -> None:
        self._workshop, self._count = workshop, count
        self._free = threading.Semaphore(count)

    def work(self) -> None:
        """Carry out what there is until there is nothing; at once done when all hands are busy."""
        if not self._free.acquire(blocking=False):
            # No loss: each busy hand looks for more when it is done.
            return
        try:
            while self._workshop.work_off_next():
                pass
        finally:
            self._free.release()

    def rest(self) -> None:
        """Begin nothing more, and return when nothing is in hand, at the latest after 8 s.

        What is not finished by then is back in the queue.
        """
        drain(self._workshop)
        deadline = time.monotonic() + DRAIN_SECONDS + DROP_SECONDS
        for _ in range(self._count):
            self._free.acquire(timeout=max(0.0, deadline - time.monotonic()))


class Keeper:
    """Does what is on the table of upkeep, each thing once at a time in this process."""

    def __init__(self, at: Workplace) -> None:
        self._at = at
        self._doing = {each.name: threading.Lock() for each in UPKEEP}
        self._works = {each.name: each.work for each in UPKEEP}

    def keep_up(self, name: str) -> None:
        """Do the thing of this name unless it is being done."""
        if name not in self._works:
            logger.warning("beat asks for %r, which this version does not know", name)
        elif self._doing[name].acquire(blocking=False):
            try:
                self._works[name](self._at)
            finally:
                self._doing[name].release()


def open_workplace(settings: Settings) -> Workplace:
    """The workplace of these settings, with connections of its own."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(make_engine(settings.database_url, settings.pool_size))
    return Workplace(settings, database, open_storage(settings), Outbound.from_settings(settings))


def run_worker(settings: Settings, with_beat: bool) -> int:
    """Work until SIGTERM or SIGINT; running work gets seconds to finish and then goes back to the queue."""
    at = open_workplace(settings)
    workshop = Workshop(
        at.database,
        at.storage,
        max(1, settings.render_workers),
        settings.lease_seconds,
        settings.max_running_per_scope,
        at.outbound,
    )
    hands = Hands(workshop, settings.render_workers)
    app = make_celery(settings)
    _add_task(app, WORK, hands.work)
    _add_task(app, WAKE, partial(Courier(app).call_workers, at.database))
    _add_task(app, KEEP_UP, Keeper(at).keep_up)
    parts: list[Any] = [
        Tracing(settings.otlp_endpoint, settings.service_name),
        MetricsPort(settings.metrics_host, settings.metrics_port, at.database, settings.database_url),
        WebhookSenders(settings, at.database, at.outbound),
        # While the broker is away nobody is called.
        Repeating("looking without being called", hands.work, OWN_LOOK_SECONDS),
    ]
    if with_beat:
        # Without the class it would take Celery's own, which keeps files.
        parts.append(EmbeddedService(app, thread=True, scheduler_cls=Scheduler))
    draining = partial(drain, workshop)
    signals.worker_shutting_down.connect(draining)
    signals.worker_ready.connect(_say_ready)
    for part in parts:
        part.start()
    try:
        worker = app.Worker(
            pool_cls="threads",
            concurrency=settings.render_workers + KEEPERS,
            loglevel=settings.log_level,
            quiet=True,
            without_gossip=True,
            without_heartbeat=True,
            without_mingle=True,
        )
        worker.start()
        return worker.exitcode or 0
    finally:
        hands.rest()
        for part in reversed(parts):
            part.stop()
        workshop.close()
        at.database.dispose()


def run_beat(settings: Settings) -> int:
    """Send what is due until SIGTERM or SIGINT; it needs no database."""
    make_celery(settings).Beat(quiet=True, loglevel=settings.log_level).run()
    return 0


def _add_task(app: Celery, name: str, work: Callable[..., object]) -> None:
    def task(*args: str) -> None:
        work(*args)

    app.task(task, name=name)


def _say_ready(**_: object) -> None:
    logger.info("the worker is ready")


def drain(workshop: Workshop, **_: object) -> None:
    """Claim nothing more, and give back what is not finished in time. Called by a signal: it only begins."""
    if workshop.stopping.is_set():
        return
    workshop.stopping.set()
    timer = threading.Timer(DRAIN_SECONDS, workshop.given_up.set)
    timer.daemon = True
    timer.start()
