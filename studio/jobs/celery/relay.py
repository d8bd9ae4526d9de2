"""Tells the workers of other processes what this one left for them, so that no request waits for a broker."""

from __future__ import annotations

import logging
import threading

from studio.jobs.celery.app import WakeupPublisher, build_celery
from studio.jobs.maintenance import Services
from studio.pubsub import listen

logger = logging.getLogger(__name__)


class WakeupRelay:
    """A thread of a server that leaves work to Celery; `start` and `stop` once each.

    What it does not come to tell is found by beat within seconds.
    """

    def __init__(self, services: Services) -> None:
        self._database = services.database
        self._publisher = WakeupPublisher(build_celery(services.settings))
        self._stopping = threading.Event()
        self._wake = listen()
        self._thread = threading.Thread(target=self._run, name="messenger", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell nothing more."""
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
                logger.exception("the workers were not called")
