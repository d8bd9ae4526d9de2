"""Makes the pictures of one claim: cut out once, painted in parallel, the lease renewed meanwhile.

No transaction is open while anything is painted.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from db.errors import NotFound
from db.session import Database
from studio.jobs import queue
from studio.media.picture import Picture as StoredPicture
from studio.media.picture import open_stored
from studio.media.storage import Storage
from studio.providers.local_studio import Picture
from studio.providers.renderers import Renderer, local_studio
from studio.telemetry.traces import step

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

TELL_SECONDS = 1.0
STAGE_SHARE = 0.2
"""Share of the progress that the cut-out is worth."""
_EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}


class Abandoned(Exception):
    """The pictures are no longer wanted from this process: it ends, or another one has taken over."""


class InputsUnusable(Exception):
    """A file that the generation works from is gone or cannot be read."""


class Painting:
    """One claim being worked off, by the local studio unless a renderer is named.

    `given_up` tells when running work is to be dropped.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        painters: Executor,
        claim: queue.Claim,
        lease: timedelta,
        given_up: Callable[[], bool],
        renderer: Renderer | None = None,
    ) -> None:
        self._database, self._storage, self._painters = database, storage, painters
        self._claim, self._lease, self._given_up = claim, lease, given_up
        self._renderer = renderer or local_studio()
        self._shares = [0.0] * claim.batch_size
        self._stage_is_set = False
        self._dropped = threading.Event()
        self._tell_after = min(TELL_SECONDS, lease.total_seconds() / 4)

    def carry_out(self) -> list[queue.Made]:
        """The pictures in order, their files stored.

        Abandoned when they are not wanted any more, InputsUnusable when there is nothing to make them from.
        """
        try:
            stage = self._await([self._submit(self._set_stage)])[0]
            self._stage_is_set = True
            return self._await(
                [self._submit(partial(self._make, stage, index)) for index in range(self._claim.batch_size)]
            )
        finally:
            self._dropped.set()

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        # In a context of its own, so that its log lines and spans belong to this claim.
        return self._painters.submit(copy_context().run, work)

    @step("set_stage")
    def _set_stage(self) -> Any:
        if self._dropped.is_set():
            raise Abandoned
        try:
            return self._renderer.set_stage(self._storage, self._claim.strategy, self._claim.inputs["scene"])
        except (NotFound, OSError) as error:
            raise InputsUnusable from error

    @step("make_picture")
    def _make(self, stage: Any, index: int) -> queue.Made:
        claim, tell = self._claim, partial(self._tell, index)
        tell(0.0)
        if claim.agentic:
            asked = claim.inputs["asked"]
            picture = self._renderer.make_best_picture(
                stage, claim.seed, index, asked["max_attempts"], asked["min_confidence_score"], tell
            )
        else:
            picture = self._renderer.make_picture(stage, claim.seed, index, tell)
        return queue.store_picture(self._storage, claim, picture, as_stored(picture))

    def _tell(self, index: int, share: float) -> None:
        if self._dropped.is_set():
            raise Abandoned
        self._shares[index] = max(self._shares[index], min(1.0, share))

    def _progress(self) -> int:
        painted = sum(self._shares) / len(self._shares)
        done = STAGE_SHARE + (1 - STAGE_SHARE) * painted if self._stage_is_set else STAGE_SHARE / 2
        return min(99, int(100 * done))

    def _await(self, futures: Sequence[Future[Result]]) -> list[Result]:
        """The results, once all are there; progress is told and the lease renewed while they are not."""
        pending: set[Future[Result]] = set(futures)
        while pending:
            _, pending = wait(pending, timeout=self._tell_after, return_when=FIRST_EXCEPTION)
            errors = (future.exception() for future in futures if future.done())
            failure = next((error for error in errors if error is not None), None)
            if failure is not None or (pending and (self._given_up() or not self._still_ours())):
                self._drop(pending)
                raise failure or Abandoned()
        return [future.result() for future in futures]

    def _drop(self, pending: Iterable[Future[Result]]) -> None:
        self._dropped.set()
        for future in pending:
            future.cancel()

    def _still_ours(self) -> bool:
        try:
            ours = queue.renew(self._database, self._claim, self._progress(), self._lease)
        except SQLAlchemyError:
            # A database that is away for a moment does not undo the work; the token decides in the end.
            logger.warning(
                "the lease of generation %s was not renewed", self._claim.generation_id, exc_info=True
            )
            return True
        return ours


def as_stored(picture: Picture) -> StoredPicture:
    """A picture of our own making as it is stored: in its final form already, only measured for the row."""
    # Here, because servers start without Pillow.
    from studio.media.normalisation import dominant_color

    with open_stored(picture.image) as opened:
        opened.draft("RGB", (192, 192))
        color = dominant_color(opened)
    return StoredPicture(
        data=picture.image,
        extension=_EXTENSIONS[picture.content_type],
        width=picture.width,
        height=picture.height,
        has_alpha=False,
        dominant_color=color,
        content_hash=hashlib.sha256(picture.image).hexdigest(),
    )
