"""Worker threads of the server process: each claims a generation and waits for its pictures."""

from __future__ import annotations

import logging
import threading
import time

from db.session import Database
from studio.generations.worker.executor import GenerationExecutor
from studio.http_client import SafeHttpClient
from studio.media.storage import Storage
from studio.pubsub import listen

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
DRAIN_SECONDS = 6.0
ABORT_SECONDS = 2.0


class GenerationWorkers:
    """The workers of one server process; `start` and `stop` once each. A count of 0 renders nothing."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        count: int,
        lease_seconds: float,
        max_running: int = 0,
        http_client: SafeHttpClient | None = None,
    ) -> None:
        self._executor = GenerationExecutor(
            database, storage, max(1, count), lease_seconds, max_running, http_client
        )
        self._wake = listen()
        self._threads = [
            threading.Thread(target=self._run, name=f"render-worker-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Begin to claim work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Claim nothing more, wait for what runs, and give the rest back to the queue, within 10 s."""
        self._executor.stopping.set()
        self._wake.set()
        self._join(DRAIN_SECONDS)
        self._executor.aborting.set()
        self._join(ABORT_SECONDS)
        self._executor.close()

    def _join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while not self._executor.stopping.is_set():
            try:
                worked = self._executor.run_next()
                if not worked and not self._executor.stopping.is_set():
                    self._wake.wait(POLL_SECONDS)
                    self._wake.clear()
            except Exception:
                # A worker must outlive whatever happens; the claim is taken up again when its lease is over.
                logger.exception("a render worker failed")
                self._executor.stopping.wait(POLL_SECONDS)
