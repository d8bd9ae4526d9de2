"""Make the cut-outs of the queue, one after the other, outside of transactions.

Threads of the workers that run generations call `run_next_cutout` (see `studio.generations.worker.executor`).
A generation that needs a cut-out at once calls `make_or_await`, so that it is made once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

from studio.cutouts.queue import (
    CUTOUTS,
    CutoutLease,
    MadeCutout,
    choose_of_photo,
    complete_cutout,
    is_available,
    is_being_made,
)
from studio.infrastructure.storage import Storage
from studio.media.ingest import store_image_file
from studio.queue.running import Heartbeat, Worker, lease_next, run_leased

SAMPLE_VERSION = "samples-1"
MAX_WAIT_SECONDS = 10.0
"""How long a generation waits for another worker, a little longer than making a cut-out usually takes.

The worker may have been killed, so the generation then does without: its own lease would last longer."""
WAIT_SECONDS = 0.2
"""The time between two looks at a cut-out that another worker makes."""

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
    _run(worker, lease, make or make_with_renderer)
    return True


def make_or_await(
    worker: Worker,
    product_image_id: UUID,
    input_hash: str,
    check: Callable[[], None],
    make: MakeCutout,
) -> None:
    """Make the cut-out of a photo out of turn if it is queued, or wait while another worker makes it.

    The caller holds neither a transaction nor memory of the renderer. So no two workers wait for each other:
    one that makes a cut-out waits for no other one. Afterwards there may still be no cut-out: it failed, is
    delayed after a failed attempt, the inputs of the photo have changed, or the wait took too long.

    Args:
        worker: The process.
        product_image_id: The photo.
        input_hash: The hash of what the cut-out is made from.
        check: Called during the wait. If it raises, the wait ends.
        make: Makes the cut-out.

    Raises:
        OSError: The storage is unreachable or full. The cut-out stays in the queue.
    """
    choose, ends_at = (
        partial(choose_of_photo, product_image_id, input_hash),
        time.monotonic() + MAX_WAIT_SECONDS,
    )
    while not worker.stopping.is_set():
        lease = lease_next(worker, CUTOUTS, choose, is_available(product_image_id, input_hash))
        if lease is not None:
            _run(worker, lease, make)
            return
        if not is_being_made(worker.database, product_image_id, input_hash) or time.monotonic() > ends_at:
            return
        check()
        worker.stopping.wait(WAIT_SECONDS)


def _run(worker: Worker, lease: CutoutLease, make: MakeCutout) -> None:
    def work(_heartbeat: Heartbeat) -> Callable[[], None]:
        made = make(worker.storage, lease)
        stored_id = (
            None if made.image is None else store_image_file(worker.storage, lease.tenant_id, made.image)
        )
        return partial(complete_cutout, worker.storage, lease, made, stored_id)

    run_leased(worker, CUTOUTS, lease, work)


def make_with_renderer(storage: Storage, lease: CutoutLease) -> MadeCutout:
    """Return the cut-out of a leased photo, made by the local renderer (see `studio.cutouts.making`)."""
    # Imported here: servers start without OpenCV.
    from studio.cutouts.making import make_cutout

    return make_cutout(storage, lease)


def make_sample(_storage: Storage, _lease: CutoutLease) -> MadeCutout:
    """Return the photo as a sample cut-out, at once and without the renderer. For the mock server."""
    return MadeCutout(image=None, method="sample", confidence=1.0, renderer_version=SAMPLE_VERSION)
