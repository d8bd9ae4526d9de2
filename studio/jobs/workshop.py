"""Carries claims out to their end: the one way in which generations are made, whoever calls it.

The painting itself is done by a pool that all callers of a process share, so that one generation uses every
core and several share them. Any number of processes may work on one database.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from db.session import Database
from studio.jobs import queue
from studio.jobs.attending import attending
from studio.jobs.painting import Abandoned, InputsUnusable, Painting
from studio.jobs.remote import RemoteWork
from studio.media.storage import Storage
from studio.outbound import Outbound
from studio.providers.compute import Compute
from studio.providers.renderers import Renderer, is_made_elsewhere

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

RECORD_PAUSE_SECONDS = 0.5


class Workshop:
    """The painters of one process, and what is done with a claim; share it among threads.

    `stopping` means that nothing more is claimed, `given_up` that running work goes back to the queue.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        painters: int,
        lease_seconds: float,
        max_running: int = 0,
        outbound: Outbound | None = None,
        renderer: Renderer | None = None,
    ) -> None:
        self._database, self._storage = database, storage
        self._lease, self._max_running = timedelta(seconds=lease_seconds), max_running
        self._name = f"{socket.gethostname()[:40]}:{os.getpid()}"
        self._remote = RemoteWork(database, storage, Compute(outbound or Outbound()), self._lease)
        self._renderer = renderer
        self._painters = ThreadPoolExecutor(painters, thread_name_prefix="painter")
        self.stopping = threading.Event()
        self.given_up = threading.Event()

    def work_off_next(self) -> bool:
        """Claim the generation that is first in the queue and carry it out; False when there is none."""
        if self.stopping.is_set() or queue.count_work(self._database, 1) == 0:
            return False
        token = f"{self._name}:{secrets.token_hex(8)}"
        claim = queue.claim_next(self._database, token, self._lease, self._max_running)
        if claim is None:
            return False
        with attending(claim):
            self._carry_out(claim)
        return True

    def close(self) -> None:
        """Let the painters go; what they still hold was given up before."""
        self._painters.shutdown(wait=False, cancel_futures=True)

    def _carry_out(self, claim: queue.Claim) -> None:
        try:
            if is_made_elsewhere(claim.remote.provider, self._renderer):
                self._remote.take_step(claim)
            else:
                self._paint(claim)
        except Abandoned:
            self._record(partial(queue.release, self._database, claim))
        except InputsUnusable:
            logger.warning("generation %s has unusable inputs", claim.generation_id, exc_info=True)
            self._record(partial(queue.fail, self._database, claim, queue.INPUT_ERROR))
        except OperationalError:
            # No fault of the generation: its lease runs out, and it is taken up again.
            raise
        except Exception:
            logger.exception("generation %s failed", claim.generation_id)
            self._record(partial(queue.fail, self._database, claim, queue.INTERNAL_ERROR))

    def _paint(self, claim: queue.Claim) -> None:
        painting = Painting(
            self._database,
            self._storage,
            self._painters,
            claim,
            self._lease,
            self.given_up.is_set,
            self._renderer,
        )
        made = painting.carry_out()
        if not self._record(partial(queue.finish, self._database, self._storage, claim, made)):
            logger.warning("generation %s was taken over by another worker", claim.generation_id)

    def _record(self, step: Callable[[], Result]) -> Result:
        """Write down how a claim ended; a database that is away is waited for as long as a lease lasts.

        Once more does no harm: the claim's token decides.
        """
        deadline = time.monotonic() + self._lease.total_seconds()
        while True:
            try:
                return step()
            except OperationalError:
                if time.monotonic() > deadline or self.given_up.is_set():
                    raise
                logger.warning("the end of a generation was not recorded; it is tried again", exc_info=True)
                self.given_up.wait(RECORD_PAUSE_SECONDS)
