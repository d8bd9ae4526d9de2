"""Makes the pictures of one claim: cut out once, painted in parallel, the lease renewed meanwhile.

No transaction is open while anything is painted.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from db.errors import NotFound
from db.session import Database
from studio import leases
from studio.generations.worker import queue
from studio.media.images import open_stored
from studio.media.storage import Storage
from studio.media.stored_image import StoredImage as StoredPicture
from studio.providers.base import Renderer, load_local_renderer
from studio.providers.local import RenderedImage
from studio.telemetry.traces import start_span

Result = TypeVar("Result")

PROGRESS_SECONDS = 1.0
PREPARE_SHARE = 0.2
"""Share of the progress that the cut-out is worth."""
_EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}


class JobAborted(Exception):
    """The pictures are no longer wanted from this process: it ends, or another one has taken over."""


class UnusableInputs(Exception):
    """A file that the generation works from is gone or cannot be read."""


class RenderJob:
    """One claim being worked off, by the local studio unless a renderer is named.

    `given_up` tells when running work is to be dropped.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        render_pool: Executor,
        lease: queue.Lease,
        lease_duration: timedelta,
        aborting: Callable[[], bool],
        renderer: Renderer | None = None,
    ) -> None:
        self._database, self._storage, self._render_pool = database, storage, render_pool
        self._lease, self._lease_duration, self._aborting = lease, lease_duration, aborting
        self._renderer = renderer or load_local_renderer()
        self._progress_shares = [0.0] * lease.batch_size
        self._is_prepared = False
        self._canceled = threading.Event()
        self._renew_interval = min(PROGRESS_SECONDS, lease_duration.total_seconds() / 4)

    def run(self) -> list[queue.RenderedFile]:
        """The pictures in order, their files stored.

        Abandoned when they are not wanted any more, InputsUnusable when there is nothing to make them from.
        """
        try:
            stage = self._wait_for_all([self._submit(self._prepare)])[0]
            self._is_prepared = True
            return self._wait_for_all(
                [self._submit(partial(self._render, stage, index)) for index in range(self._lease.batch_size)]
            )
        finally:
            self._canceled.set()

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        # In a context of its own, so that its log lines and spans belong to this claim.
        return self._render_pool.submit(copy_context().run, work)

    @start_span("set_stage")
    def _prepare(self) -> Any:
        if self._canceled.is_set():
            raise JobAborted
        try:
            return self._renderer.prepare_context(
                self._storage, self._lease.strategy, self._lease.inputs["scene"]
            )
        except (NotFound, OSError) as error:
            raise UnusableInputs from error

    @start_span("make_picture")
    def _render(self, stage: Any, index: int) -> queue.RenderedFile:
        claim, tell = self._lease, partial(self._report_progress, index)
        tell(0.0)
        if claim.agentic:
            asked = claim.inputs["asked"]
            picture = self._renderer.render_best_image(
                stage, claim.seed, index, asked["max_attempts"], asked["min_confidence_score"], tell
            )
        else:
            picture = self._renderer.render_image(stage, claim.seed, index, tell)
        return queue.store_rendered_file(self._storage, claim, picture, to_stored_image(picture))

    def _report_progress(self, index: int, share: float) -> None:
        if self._canceled.is_set():
            raise JobAborted
        self._progress_shares[index] = max(self._progress_shares[index], min(1.0, share))

    def _progress(self) -> int:
        painted = sum(self._progress_shares) / len(self._progress_shares)
        done = PREPARE_SHARE + (1 - PREPARE_SHARE) * painted if self._is_prepared else PREPARE_SHARE / 2
        return min(99, int(100 * done))

    def _wait_for_all(self, futures: Sequence[Future[Result]]) -> list[Result]:
        """The results, once all are there; progress is told and the lease renewed while they are not."""
        pending: set[Future[Result]] = set(futures)
        while pending:
            _, pending = wait(pending, timeout=self._renew_interval, return_when=FIRST_EXCEPTION)
            errors = (future.exception() for future in futures if future.done())
            failure = next((error for error in errors if error is not None), None)
            if failure is not None or (pending and (self._aborting() or not self._renew_lease())):
                self._cancel(pending)
                raise failure or JobAborted()
        return [future.result() for future in futures]

    def _cancel(self, pending: Iterable[Future[Result]]) -> None:
        self._canceled.set()
        for future in pending:
            future.cancel()

    def _renew_lease(self) -> bool:
        return leases.renew_despite_outage(
            partial(queue.renew, self._database, self._lease, self._progress(), self._lease_duration),
            f"generation {self._lease.generation_id}",
        )


def to_stored_image(image: RenderedImage) -> StoredPicture:
    """A picture of our own making as it is stored: in its final form already, only measured for the row."""
    # Here, because servers start without Pillow.
    from studio.media.normalisation import dominant_color

    with open_stored(image.image) as opened:
        opened.draft("RGB", (192, 192))
        color = dominant_color(opened)
    return StoredPicture(
        data=image.image,
        extension=_EXTENSIONS[image.content_type],
        width=image.width,
        height=image.height,
        has_alpha=False,
        dominant_color=color,
        content_hash=hashlib.sha256(image.image).hexdigest(),
    )
