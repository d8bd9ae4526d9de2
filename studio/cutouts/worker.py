"""Make the cut-outs of the queue, one after the other, outside of transactions.

Threads of the workers that run generations call `CutoutWorker.run_next` (see
`studio.generations.worker.executor`). Any number of processes may work on one database. If a process dies,
another one makes the same cut-out again once the lease has expired.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from db.engine import is_database_unavailable
from db.session import Database
from studio import leases
from studio.cutouts import queue
from studio.cutouts.queue import Lease, MadeCutout
from studio.cutouts.requests import UnusableCutoutInputs
from studio.media.storage import Storage, is_storage_unavailable, is_storage_working

logger = logging.getLogger(__name__)

SAMPLE_VERSION = "samples-1"

MakeCutout = Callable[[Storage, Lease], MadeCutout]


class CutoutWorker:
    """Leases cut-outs and makes them. One per process; threads can share it.

    Args:
        database: The database of the queue.
        storage: The storage of photos, masks and cut-outs.
        lease_duration: How long a lease lasts; it is renewed while a cut-out is made.
        make: Makes a cut-out; by default with the local renderer, which it loads.
    """

    def __init__(
        self, database: Database, storage: Storage, lease_duration: timedelta, make: MakeCutout | None = None
    ) -> None:
        self._database, self._storage, self._lease_duration = database, storage, lease_duration
        self._make = make or _make_with_renderer

    def run_next(self) -> bool:
        """Lease the next cut-out of the queue and make it; return False if there is none.

        Raises:
            OSError: The storage is unreachable or full. The cut-out stays in the queue.
        """
        if queue.count_available(self._database, 1) == 0:
            return False
        self._storage.check()
        lease = queue.lease_next(self._database, leases.new_token(), self._lease_duration)
        if lease is not None:
            self._run(lease)
        return lease is not None

    def _run(self, lease: Lease) -> None:
        name, release = f"cut-out {lease.cutout_id}", partial(queue.release, self._database, lease)
        renew = partial(queue.renew, self._database, lease, self._lease_duration)
        try:
            with leases.keep(renew, self._lease_duration, name):
                made = self._make(self._storage, lease)
            queue.try_complete(self._database, self._storage, lease, made)
        except UnusableCutoutInputs:
            logger.warning("cut-out %s has unusable inputs", lease.cutout_id, exc_info=True)
            queue.fail(self._database, lease)
        except Exception as error:
            if is_database_unavailable(error):
                leases.release_after_outage(release, self._lease_duration, name)
                raise
            if is_storage_unavailable(error):
                # If the storage works, the cause can be a file of this cut-out. Else it keeps the attempt.
                release(counts_attempt=is_storage_working(self._storage))
                raise
            logger.exception("%s failed", name)
            release(counts_attempt=True)


def _make_with_renderer(storage: Storage, lease: Lease) -> MadeCutout:
    # Imported here: servers start without OpenCV.
    from studio.cutouts.making import make_cutout

    return make_cutout(storage, lease)


def make_sample(_storage: Storage, _lease: Lease) -> MadeCutout:
    """Return the photo as a sample cut-out, at once and without the renderer. For the mock server."""
    return MadeCutout(image=None, method="sample", confidence=1.0, renderer_version=SAMPLE_VERSION)
