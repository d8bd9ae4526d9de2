"""Make the cut-outs of the queue, one after the other, outside of transactions.

Threads of the workers that run generations call `run_next_cutout` (see `studio.generations.worker.executor`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from studio.cutouts.queue import CUTOUTS, CutoutLease, MadeCutout, complete_cutout
from studio.infrastructure.storage import Storage
from studio.media.ingest import store_image_file
from studio.queue.running import Heartbeat, Worker, lease_next, run_leased

SAMPLE_VERSION = "samples-1"

MakeCutout = Callable[[Storage, CutoutLease], MadeCutout]


def run_next_cutout(worker: Worker, make: MakeCutout | None = None) -> bool:
    """Lease the next cut-out of the queue and make it; return False if there is none.

    Args:
        worker: The process.
        make: Makes a cut-out; by default with the local renderer, which it loads.

    Raises:
        OSError: The storage is unreachable or full. The cut-out stays in the queue.
    """
    lease = lease_next(worker, CUTOUTS)
    if lease is None:
        return False

    def work(_heartbeat: Heartbeat) -> Callable[[], None]:
        made = (make or _make_with_renderer)(worker.storage, lease)
        stored_id = (
            None if made.image is None else store_image_file(worker.storage, lease.tenant_id, made.image)
        )
        return partial(complete_cutout, worker.storage, lease, made, stored_id)

    run_leased(worker, CUTOUTS, lease, work)
    return True


def _make_with_renderer(storage: Storage, lease: CutoutLease) -> MadeCutout:
    # Imported here: servers start without OpenCV.
    from studio.cutouts.making import make_cutout

    return make_cutout(storage, lease)


def make_sample(_storage: Storage, _lease: CutoutLease) -> MadeCutout:
    """Return the photo as a sample cut-out, at once and without the renderer. For the mock server."""
    return MadeCutout(image=None, method="sample", confidence=1.0, renderer_version=SAMPLE_VERSION)
