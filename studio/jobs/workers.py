"""Worker threads of the server process: each claims a generation and waits for its pictures.

The painting itself is done by a pool that all workers share, so that one generation uses every core and
several share them. Any number of server processes may work on one database.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from db.session import Database
from studio.jobs import queue
from studio.jobs.painting import Abandoned, InputsUnusable, Painting
from studio.jobs.signal import listen
from studio.media.storage import Storage

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
DRAIN_SECONDS = 6.0
DROP_SECONDS = 2.0


class RenderWorkers:
    """The workers of one server process; `start` and `stop` once each. A count of 0 renders nothing."""

    def __init__(self, database: Database, storage: Storage, count: int, lease_seconds: float) -> None:
        self._database, self._storage, self._count = database, storage, count
        self._lease = timedelta(seconds=lease_seconds)
        self._name = f"{socket.gethostname()[:40]}:{os.getpid()}"
        self._stopping = threading.Event()
        self._given_up = threading.Event()
        self._wake = listen()
        self._threads: list[threading.Thread] = []
        self._painters: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Begin to claim work."""
        if self._count == 0:
            return
        self._painters = ThreadPoolExecutor(self._count, thread_name_prefix="painter")
        for number in range(self._count):
            thread = threading.Thread(target=self._work, name=f"render-worker-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Claim nothing more, wait for what runs, and give the rest back to the queue, within 10 s."""
        self._stopping.set()
        self._wake.set()
        self._join(DRAIN_SECONDS)
        self._given_up.set()
        self._join(DROP_SECONDS)
        if self._painters is not None:
            self._painters.shutdown(wait=False, cancel_futures=True)

    def _join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                claim = self._claim()
                if claim is not None:
                    self._carry_out(claim)
                elif not self._stopping.is_set():
                    self._wake.wait(POLL_SECONDS)
                    self._wake.clear()
            except Exception:
                # A worker must outlive whatever happens; the claim is taken up again when its lease is over.
                logger.exception("a render worker failed")
                self._stopping.wait(POLL_SECONDS)

    def _claim(self) -> queue.Claim | None:
        if not queue.has_work(self._database):
            return None
        return queue.claim_next(self._database, f"{self._name}:{secrets.token_hex(8)}", self._lease)

    def _carry_out(self, claim: queue.Claim) -> None:
        assert self._painters is not None  # noqa: S101 - set before the first worker starts
        painting = Painting(
            self._database, self._storage, self._painters, claim, self._lease, self._given_up.is_set
        )
        try:
            made = painting.carry_out()
        except Abandoned:
            queue.release(self._database, claim)
        except InputsUnusable:
            logger.warning("generation %s has unusable inputs", claim.generation_id, exc_info=True)
            queue.fail(self._database, claim, queue.INPUT_ERROR)
        except Exception:
            logger.exception("generation %s failed", claim.generation_id)
            queue.fail(self._database, claim, queue.INTERNAL_ERROR)
        else:
            if not queue.finish(self._database, self._storage, claim, made):
                logger.warning("generation %s was taken over by another worker", claim.generation_id)
