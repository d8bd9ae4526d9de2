"""One step of a generation that a Compute API makes: submit it, look at it, fetch its pictures or end it.

A step takes seconds, then the row is parked. A step that is cut off is taken again by whoever claims the row
next: the order's key makes no second task, and a picture is stored under a name that its content gives.
"""

from __future__ import annotations

import base64
import io
import logging
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import utc_now
from db.errors import NotFound, Refused
from db.models.generation_models import GenerationModel
from db.session import Database
from studio.jobs import parking, queue
from studio.jobs.painting import Abandoned, InputsUnusable, as_stored
from studio.media.picture import CONTENT_TYPES, normalise, open_stored
from studio.media.storage import Storage, media_key
from studio.providers.compute import (
    Access,
    Compute,
    ComputeUnavailable,
    OrderRefused,
    RemotePicture,
    RemoteTask,
    order_of,
)
from studio.providers.local_studio import Picture

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 15.0
MAX_FAILURES = 3
MAX_TASK = timedelta(hours=1)
LARGEST_PHOTOGRAPH = 2_048
_GROWTH = 1.4
PROVIDER_ERROR = {
    "category": "provider",
    "message": "The provider could not make the pictures; the credits were returned",
    "retryable": True,
}


class _Unusable(ComputeUnavailable):
    """What the task made is not what was ordered."""


class RemoteWork:
    """Takes steps of claims whose provider is COMPUTE. One per process; share it among threads."""

    def __init__(self, database: Database, storage: Storage, compute: Compute, lease: timedelta) -> None:
        self._database, self._storage, self._compute, self._lease = database, storage, compute, lease

    def take_step(self, claim: queue.Claim) -> None:
        """Bring the generation one step further and let go of it.

        InputsUnusable when a photograph is gone, Abandoned when the generation is no longer ours.
        """
        with parking.held(self._database, claim, self._lease):
            self._take_step(claim)

    def _take_step(self, claim: queue.Claim) -> None:
        try:
            access = Access.of(self._config(claim))
            if claim.remote.ending:
                self._stop(access, claim.remote.task_id)
                parking.end(self._database, claim)
            elif claim.remote.task_id is None:
                self._submit(access, claim)
            else:
                self._look(access, claim, claim.remote.task_id)
        except ComputeUnavailable as failure:
            logger.warning("generation %s is not made by its provider: %s", claim.generation_id, failure)
            if claim.remote.ending:
                parking.end(self._database, claim)
            else:
                parking.fall_back(self._database, claim, PROVIDER_ERROR)

    def _config(self, claim: queue.Claim) -> dict[str, Any] | None:
        with self._database.transaction(write=False) as reading:
            model = reading.scalar(select(GenerationModel).where(GenerationModel.id == claim.remote.model_id))
        if model is None:
            return None
        return model.fallback_provider_config if claim.remote.fallen_back else model.provider_config

    def _submit(self, access: Access, claim: queue.Claim) -> None:
        # A generation is ordered once from each provider, however often the step is repeated.
        key = f"{claim.generation_id}:{2 if claim.remote.fallen_back else 1}"
        order = order_of(
            claim.strategy, claim.inputs, claim.seed, claim.batch_size, _photographs(self._storage, claim)
        )
        task_id = self._compute.submit(access, key, str(claim.generation_id), order)
        if not parking.park(self._database, claim, task_id, _pause(0), progress=0):
            self._stop(access, task_id)

    def _look(self, access: Access, claim: queue.Claim, task_id: str) -> None:
        try:
            task = self._compute.look(access, task_id)
            if task.status == "completed":
                self._take_over(claim, task)
                return
        except (OrderRefused, _Unusable):
            raise
        except ComputeUnavailable:
            failures = claim.remote.failures + 1
            if failures >= MAX_FAILURES:
                self._stop(access, task_id)
                raise
            logger.warning("a look at generation %s failed", claim.generation_id, exc_info=True)
            parking.park(self._database, claim, task_id, _pause(4 * failures), 0, failures)
            return
        if task.status != "running":
            logger.warning("the task of generation %s is %s", claim.generation_id, task.status)
            queue.fail(self._database, claim, PROVIDER_ERROR)
        elif utc_now() - claim.remote.started_at > MAX_TASK:
            self._stop(access, task_id)
            raise ComputeUnavailable("the task takes too long")
        else:
            parking.park(self._database, claim, task_id, _pause(claim.remote.steps), task.progress)

    def _take_over(self, claim: queue.Claim, task: RemoteTask) -> None:
        if len(task.pictures) < claim.batch_size:
            raise _Unusable(f"{len(task.pictures)} pictures came of {claim.batch_size}")
        made = []
        for index, remote in enumerate(task.pictures[: claim.batch_size]):
            if not parking.hold(self._database, claim, self._lease):
                raise Abandoned
            picture = _finished(claim, remote, index, self._compute.fetch(remote.url))
            made.append(queue.store_picture(self._storage, claim, picture, as_stored(picture)))
        if not queue.finish(self._database, self._storage, claim, made):
            logger.warning("generation %s was taken over by another worker", claim.generation_id)

    def _stop(self, access: Access, task_id: str | None) -> None:
        """Cancel a task that nobody waits for; if that fails, its pictures are never asked for."""
        if task_id is None:
            return
        try:
            self._compute.cancel(access, task_id)
        except ComputeUnavailable as failure:
            logger.warning("a task of a provider could not be canceled: %s", failure)


def _pause(steps: int) -> timedelta:
    """Longer with every look, and never the same for two generations that began together."""
    seconds = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * _GROWTH ** min(steps, 20))
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, hides nothing


def _photographs(storage: Storage, claim: queue.Claim) -> dict[str, str]:
    """The order's pictures as data: addresses, so that the other side needs no way back to us."""
    scene = claim.inputs["scene"]
    sources = {
        "input_image_url": scene.get("source") or scene.get("product"),
        "reference_image_url": scene.get("subject"),
    }
    return {name: _data_url(storage, file) for name, file in sources.items() if file}


def _data_url(storage: Storage, file: dict[str, Any]) -> str:
    try:
        data = storage.read(media_key(UUID(file["media_id"]), file["extension"]))
        with open_stored(data) as picture:
            content_type = CONTENT_TYPES[file["extension"]]
            if max(picture.size) > LARGEST_PHOTOGRAPH:
                picture.thumbnail((LARGEST_PHOTOGRAPH, LARGEST_PHOTOGRAPH))
                smaller = io.BytesIO()
                file_format = "png" if "A" in picture.mode else "jpeg"
                picture.save(smaller, file_format, quality=92)
                data, content_type = smaller.getvalue(), f"image/{file_format}"
    except (NotFound, OSError) as error:
        raise InputsUnusable from error
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def _finished(claim: queue.Claim, remote: RemotePicture, index: int, data: bytes) -> Picture:
    """The fetched bytes, checked as an upload is, as a judged picture of the size and format ordered."""
    # Here, because servers start without OpenCV.
    from studio.rendering import RENDERER_VERSION, prepare, reduced, refine

    scene = claim.inputs["scene"]
    try:
        received = normalise(data)
    except Refused as error:
        raise _Unusable(f"what came is no picture: {error}") from error
    with open_stored(received.data) as picture:
        picture.load()
        rendering = refine(
            picture,
            width=scene["width"],
            height=scene["height"],
            file_format=scene["file_format"],
            quality=scene["quality"],
            strength=0.0,
            cut_out=prepare(reduced(picture)),
            framing=scene["framing"],
        )
    return Picture(
        image=rendering.image,
        content_type=rendering.content_type,
        width=rendering.width,
        height=rendering.height,
        seed=claim.seed + index if remote.seed is None else remote.seed,
        quality=rendering.quality.as_dict(),
        cut_out=None,
        settings={"received_width": received.width, "received_height": received.height},
        unused=frozenset(),
        renderer_version=RENDERER_VERSION,
    )
