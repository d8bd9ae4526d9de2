"""Run queued generations and cut-outs in worker threads.

`GenerationExecutor` is the only way in which generations are run, whether its caller is a worker thread, a
Celery task or a mock. Images are rendered by a thread pool that all callers in a process share, so
that one generation uses every core. Any number of processes can work on one database.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from db.engine import is_database_unavailable
from studio.cutouts.worker import run_next_cutout
from studio.generations.worker.images import ImagesRunner
from studio.generations.worker.queue import GENERATIONS, GenerationLease, complete_generation
from studio.generations.worker.remote import RemoteRunner
from studio.generations.worker.render_job import RenderJob
from studio.generations.worker.scheduling import choose_permitted
from studio.infrastructure import pubsub
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import is_storage_unavailable
from studio.infrastructure.telemetry import traces
from studio.infrastructure.telemetry.context import LogContext, log_context, parse_traceparent
from studio.media.memory_gate import set_render_threads
from studio.providers.base import Renderer, is_remote
from studio.providers.compute import ComputeClient
from studio.providers.openai_images import PROVIDER as OPENAI_IMAGES
from studio.providers.openai_images import ImagesServer
from studio.providers.openai_images_client import ImagesClient
from studio.queue.running import Heartbeat, Record, Worker, lease_next, run_leased

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
DRAIN_SECONDS = 6.0
ABORT_SECONDS = 2.0


class GenerationExecutor:
    """Leases generations and cut-outs and runs them. One per process; threads can share it."""

    def __init__(
        self,
        worker: Worker,
        render_threads: int,
        max_running: int = 0,
        http_client: SafeHttpClient | None = None,
        renderer: Renderer | None = None,
        images_server: ImagesServer | None = None,
    ) -> None:
        self.worker = worker
        self._choose = partial(choose_permitted, max_running)
        client = http_client or SafeHttpClient()
        self._remote = RemoteRunner(self.worker, ComputeClient(client))
        # Only this client reaches the operator's own server: webhooks and image URLs of tenants do not.
        server = images_server or ImagesServer()
        self._images = ImagesRunner(self.worker, ImagesClient(client.allowing(server.host)), server)
        self._renderer = renderer
        set_render_threads(render_threads)
        self._render_pool = ThreadPoolExecutor(render_threads, thread_name_prefix="renderer")

    def run_next(self) -> bool:
        """Run the next generation, then make the next cut-out; return False if there is neither.

        Raises:
            OSError: The storage is unreachable or full. Nothing is leased until it works again.
        """
        lease = self.lease_next()
        if lease is not None:
            self.run(lease)
        # One cut-out after each generation: a long queue of either kind does not block the other.
        has_made_cutout = run_next_cutout(self.worker)
        return lease is not None or has_made_cutout

    def lease_next(self) -> GenerationLease | None:
        """Lease the next generation of the queue; return None if there is none.

        Raises:
            OSError: As `run_next`.
        """
        return lease_next(self.worker, GENERATIONS, self._choose)

    def run(self, lease: GenerationLease) -> None:
        """Run a leased generation.

        Raises:
            OSError: The storage became unreachable or full; the generation is back in the queue.
        """
        with _lease_context(lease):
            run_leased(self.worker, GENERATIONS, lease, partial(self._work, lease))

    def close(self) -> None:
        """Stop the thread pool without waiting; abort the worker first."""
        self._render_pool.shutdown(wait=False, cancel_futures=True)

    def _work(self, lease: GenerationLease, heartbeat: Heartbeat) -> Record | None:
        if not is_remote(lease.remote.provider, self._renderer):
            files = RenderJob(self.worker, self._render_pool, lease, heartbeat, self._renderer).run()
            return partial(complete_generation, self.worker.storage, lease, files)
        runner = self._images if lease.remote.provider == OPENAI_IMAGES else self._remote
        return runner.step(lease, heartbeat)


class GenerationWorkers:
    """The worker threads of a server process. Call `start` and `stop` once each.

    With a count of 0 the process runs no generations.
    """

    def __init__(
        self,
        worker: Worker,
        count: int,
        max_running: int = 0,
        http_client: SafeHttpClient | None = None,
        images_server: ImagesServer | None = None,
    ) -> None:
        self._executor = GenerationExecutor(
            worker, max(1, count), max_running, http_client, images_server=images_server
        )
        self._worker = worker
        self._wakeup = pubsub.GENERATIONS.listen()
        self._threads = [
            threading.Thread(target=self._run, name=f"render-worker-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lease no more, wait for running generations and return the rest to the queue, within 10 s.

        Then the work of all other queues of this process stops, too, and returns to its queue.
        """
        self._worker.stopping.set()
        self._wakeup.set()
        self._join(DRAIN_SECONDS)
        self._worker.abort()
        self._join(ABORT_SECONDS)
        self._executor.close()

    def _join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while not self._worker.stopping.is_set():
            try:
                has_run = self._executor.run_next()
                if not has_run and not self._worker.stopping.is_set():
                    self._wakeup.wait(POLL_SECONDS)
                    self._wakeup.clear()
            except Exception as error:
                # The thread must survive any error; the generation is taken over when its lease has expired.
                if is_database_unavailable(error) or is_storage_unavailable(error):
                    logger.warning("generation worker has no database or storage, retrying: %s", error)
                else:
                    logger.exception("a generation worker failed")
                self._worker.stopping.wait(POLL_SECONDS)


@contextmanager
def _lease_context(lease: GenerationLease) -> Iterator[None]:
    """Log and trace within the block as part of the trace of the request that created the generation."""
    generation_id = str(lease.row_id)
    organization_id = str(lease.organization_id) if lease.organization_id else None
    attributes = {"sartiq.generation_id": generation_id, "sartiq.strategy": lease.strategy}
    if organization_id is not None:
        attributes["sartiq.organization_id"] = organization_id
    parent = parse_traceparent(lease.trace_context)
    with (
        log_context(LogContext(generation_id=generation_id, organization_id=organization_id)),
        traces.start_root_span("make_generation", traces.CONSUMER, parent, attributes),
    ):
        yield
