"""Run queued generations and cut-outs in worker threads.

`GenerationExecutor` is the only way in which generations are run, whether its caller is a worker thread, a
Celery task or a mock. Images are rendered by a thread pool that all callers in a process share, so
that one generation uses every core. Any number of processes can work on one database.
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

from db.engine import is_database_unavailable
from db.session import Database
from studio import leases
from studio.cutouts.worker import CutoutWorker
from studio.generations.worker import queue
from studio.generations.worker.images import ImagesRunner
from studio.generations.worker.queue import Lease
from studio.generations.worker.remote import RemoteRunner
from studio.generations.worker.render_job import JobAborted, RenderJob, UnusableInputs
from studio.http_client import SafeHttpClient
from studio.media.memory_gate import set_render_threads
from studio.media.storage import Storage, is_storage_unavailable, is_storage_working
from studio.providers.base import Renderer, is_remote
from studio.providers.compute import ComputeClient
from studio.providers.openai_images import PROVIDER as OPENAI_IMAGES
from studio.providers.openai_images import ImagesServer
from studio.providers.openai_images_client import ImagesClient
from studio.pubsub import listen
from studio.telemetry import traces
from studio.telemetry.context import LogContext, log_context, parse_traceparent

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

POLL_SECONDS = 1.0
DRAIN_SECONDS = 6.0
ABORT_SECONDS = 2.0


class GenerationExecutor:
    """Leases generations and cut-outs and runs them. One per process; threads can share it.

    Attributes:
        stopping: When set, no more generations are leased.
        aborting: When set, running generations go back to the queue.
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
        images_server: ImagesServer | None = None,
    ) -> None:
        self._database, self._storage = database, storage
        self._lease_duration, self._max_running = timedelta(seconds=lease_seconds), max_running
        client = http_client or SafeHttpClient()
        self._remote = RemoteRunner(database, storage, ComputeClient(client), self._lease_duration)
        # Only this client reaches the operator's own server: webhooks and image URLs of tenants do not.
        server = images_server or ImagesServer()
        images_client = ImagesClient(client.allowing(server.host))
        self._images = ImagesRunner(database, storage, images_client, server, self._lease_duration)
        self._renderer = renderer
        self._cutouts = CutoutWorker(database, storage, self._lease_duration)
        self._storage_failed = False
        set_render_threads(render_threads)
        self._render_pool = ThreadPoolExecutor(render_threads, thread_name_prefix="renderer")
        self.stopping = threading.Event()
        self.aborting = threading.Event()

    def run_next(self) -> bool:
        """Run the next generation, then make the next cut-out; return False if there is neither.

        Raises:
            OSError: The storage is unreachable or full. Nothing is leased until it works again.
        """
        lease = self.lease_next()
        if lease is not None:
            self.run(lease)
        # One cut-out after each generation: a long queue of either kind does not block the other.
        has_made_cutout = not self.stopping.is_set() and self._cutouts.run_next()
        return lease is not None or has_made_cutout

    def lease_next(self) -> Lease | None:
        """Lease the next generation of the queue; return None if there is none.

        Raises:
            OSError: As `run_next`.
        """
        if self.stopping.is_set() or queue.count_available(self._database, 1) == 0:
            return None
        if self._storage_failed:
            self._storage.check()
            self._storage_failed = False
        return queue.lease_next(self._database, leases.new_token(), self._lease_duration, self._max_running)

    def run(self, lease: Lease) -> None:
        """Run a leased generation.

        Raises:
            OSError: The storage became unreachable or full; the generation is back in the queue.
        """
        with _lease_context(lease):
            self._run(lease)

    def close(self) -> None:
        """Stop the thread pool without waiting; set `aborting` first."""
        self._render_pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, lease: Lease) -> None:
        try:
            if not is_remote(lease.remote.provider, self._renderer):
                self._render(lease)
            elif lease.remote.provider == OPENAI_IMAGES:
                self._images.step(lease)
            else:
                self._remote.step(lease)
        except JobAborted:
            self._record(lease, partial(queue.release, self._database, lease))
        except UnusableInputs:
            logger.warning("generation %s has unusable inputs", lease.generation_id, exc_info=True)
            self._record(lease, partial(queue.fail, self._database, lease, queue.INPUT_ERROR))
        except Exception as error:
            if is_database_unavailable(error):
                # Not an error of the generation: a worker takes it over when the lease has expired. It is not
                # released, because the task of a remote provider may have to be canceled first.
                raise
            if is_storage_unavailable(error):
                # If the storage works, the cause can be a file of this generation. Else it keeps the attempt.
                self._storage_failed = True
                counts_attempt = is_storage_working(self._storage)
                release = partial(queue.release, self._database, lease, counts_attempt=counts_attempt)
                self._record(lease, release)
                raise
            logger.exception("generation %s failed", lease.generation_id)
            self._record(lease, partial(queue.fail, self._database, lease, queue.INTERNAL_ERROR))

    def _render(self, lease: Lease) -> None:
        job = RenderJob(
            self._database,
            self._storage,
            self._render_pool,
            lease,
            self._lease_duration,
            self.aborting.is_set,
            self._renderer,
        )
        files = job.run()
        complete = partial(queue.try_complete, self._database, self._storage, lease, files)
        if not self._record(lease, complete):
            logger.warning("generation %s was taken over by another worker", lease.generation_id)

    def _record(self, lease: Lease, write: Callable[[], Result]) -> Result:
        """Call `write`, and retry during an outage of the database for as long as a lease lasts."""
        description = f"the end of generation {lease.generation_id}"
        return leases.retry_in_outage(write, self._lease_duration, description, self.aborting)


class GenerationWorkers:
    """The worker threads of a server process. Call `start` and `stop` once each.

    With a count of 0 the process runs no generations.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        count: int,
        lease_seconds: float,
        max_running: int = 0,
        http_client: SafeHttpClient | None = None,
        images_server: ImagesServer | None = None,
    ) -> None:
        self._executor = GenerationExecutor(
            database,
            storage,
            max(1, count),
            lease_seconds,
            max_running,
            http_client,
            images_server=images_server,
        )
        self._wakeup = listen()
        self._threads = [
            threading.Thread(target=self._run, name=f"render-worker-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lease no more, wait for running generations and return the rest to the queue, within 10 s."""
        self._executor.stopping.set()
        self._wakeup.set()
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
                has_run = self._executor.run_next()
                if not has_run and not self._executor.stopping.is_set():
                    self._wakeup.wait(POLL_SECONDS)
                    self._wakeup.clear()
            except Exception as error:
                # The thread must survive any error; the generation is taken over when its lease has expired.
                if is_database_unavailable(error) or is_storage_unavailable(error):
                    logger.warning("generation worker has no database or storage, retrying: %s", error)
                else:
                    logger.exception("a generation worker failed")
                self._executor.stopping.wait(POLL_SECONDS)


@contextmanager
def _lease_context(lease: Lease) -> Iterator[None]:
    """Log and trace within the block as part of the trace of the request that created the generation."""
    generation_id = str(lease.generation_id)
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
