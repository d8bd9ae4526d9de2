"""Carries claims out to their end: the one way in which generations are made, whoever calls it.

The painting itself is done by a pool that all callers of a process share, so that one generation uses every
core and several share them. Any number of processes may work on one database.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from db.session import Database
from studio import leases
from studio.generations.worker import queue
from studio.generations.worker.queue import Lease
from studio.generations.worker.remote import RemoteRunner
from studio.generations.worker.render_job import JobAborted, RenderJob, UnusableInputs
from studio.http_client import SafeHttpClient
from studio.media.storage import Storage
from studio.providers.base import Renderer, is_remote
from studio.providers.compute import ComputeClient
from studio.telemetry import traces
from studio.telemetry.context import LogContext, log_context, parse_traceparent

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

RECORD_RETRY_SECONDS = 0.5


class GenerationExecutor:
    """The painters of one process, and what is done with a claim; share it among threads.

    `stopping` means that nothing more is claimed, `given_up` that running work goes back to the queue.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        render_threads: int,
        lease_seconds: float,
        max_running: int = 0,
        http_client: SafeHttpClient | None = None,
        renderer: Renderer | None = None,
    ) -> None:
        self._database, self._storage = database, storage
        self._lease_duration, self._max_running = timedelta(seconds=lease_seconds), max_running
        self._remote = RemoteRunner(
            database, storage, ComputeClient(http_client or SafeHttpClient()), self._lease_duration
        )
        self._renderer = renderer
        self._render_pool = ThreadPoolExecutor(render_threads, thread_name_prefix="painter")
        self.stopping = threading.Event()
        self.aborting = threading.Event()

    def run_next(self) -> bool:
        """Claim the generation that is first in the queue and carry it out; False when there is none."""
        if self.stopping.is_set() or queue.count_available(self._database, 1) == 0:
            return False
        claim = queue.lease_next(self._database, leases.new_token(), self._lease_duration, self._max_running)
        if claim is None:
            return False
        with lease_context(claim):
            self._run(claim)
        return True

    def close(self) -> None:
        """Let the painters go; what they still hold was given up before."""
        self._render_pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, lease: queue.Lease) -> None:
        try:
            if is_remote(lease.remote.provider, self._renderer):
                self._remote.step(lease)
            else:
                self._render(lease)
        except JobAborted:
            self._record(partial(queue.release, self._database, lease))
        except UnusableInputs:
            logger.warning("generation %s has unusable inputs", lease.generation_id, exc_info=True)
            self._record(partial(queue.fail, self._database, lease, queue.INPUT_ERROR))
        except OperationalError:
            # No fault of the generation: its lease runs out, and it is taken up again.
            raise
        except Exception:
            logger.exception("generation %s failed", lease.generation_id)
            self._record(partial(queue.fail, self._database, lease, queue.INTERNAL_ERROR))

    def _render(self, lease: queue.Lease) -> None:
        painting = RenderJob(
            self._database,
            self._storage,
            self._render_pool,
            lease,
            self._lease_duration,
            self.aborting.is_set,
            self._renderer,
        )
        made = painting.run()
        if not self._record(partial(queue.try_complete, self._database, self._storage, lease, made)):
            logger.warning("generation %s was taken over by another worker", lease.generation_id)

    def _record(self, step: Callable[[], Result]) -> Result:
        """Write down how a claim ended; a database that is away is waited for as long as a lease lasts.

        Once more does no harm: the claim's token decides.
        """
        deadline = time.monotonic() + self._lease_duration.total_seconds()
        while True:
            try:
                return step()
            except OperationalError:
                if time.monotonic() > deadline or self.aborting.is_set():
                    raise
                logger.warning("the end of a generation was not recorded; it is tried again", exc_info=True)
                self.aborting.wait(RECORD_RETRY_SECONDS)


@contextmanager
def lease_context(lease: Lease) -> Iterator[None]:
    """Work on the claim within the block, as a step of the trace of the request that ordered it."""
    generation_id = str(lease.generation_id)
    organization_id = str(lease.organization_id) if lease.organization_id else None
    attributes = {"sartiq.generation_id": generation_id, "sartiq.strategy": lease.strategy}
    if organization_id is not None:
        attributes["sartiq.organization_id"] = organization_id
    order = parse_traceparent(lease.trace_context)
    with (
        log_context(LogContext(generation_id=generation_id, organization_id=organization_id)),
        traces.start_root_span("make_generation", traces.CONSUMER, order, attributes),
    ):
        yield
