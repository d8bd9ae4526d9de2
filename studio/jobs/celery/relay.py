"""Notify the Celery workers of new generations from a thread, so that no request waits for the broker."""

from __future__ import annotations

import logging
import threading

from studio.infrastructure.pubsub import GENERATIONS
from studio.jobs.celery.app import WakeupPublisher, build_celery
from studio.jobs.maintenance import Services

logger = logging.getLogger(__name__)


class WakeupRelay:
    """A thread of a server whose generations run in Celery workers; call `start` and `stop` once each.

    If a notification is lost, beat notifies the workers within seconds.
    """

    def __init__(self, services: Services) -> None:
        self._database = services.database
        self._publisher = WakeupPublisher(build_celery(services.settings))
        self._stopping = threading.Event()
        self._wake = GENERATIONS.listen()
        self._thread = threading.Thread(target=self._run, name="wakeup-relay", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            try:
                self._publisher.notify_workers(self._database)
            except Exception:
                logger.exception("notification of workers failed")
