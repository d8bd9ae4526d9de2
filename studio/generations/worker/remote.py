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
from db.errors import DomainError, NotFound
from db.models.generation_models import GenerationModel
from db.session import Database
from studio.generations.worker import polling, queue
from studio.generations.worker.render_job import JobAborted, UnusableInputs, to_stored_image
from studio.media.images import normalise, open_stored
from studio.media.storage import Storage, media_key
from studio.media.stored_image import CONTENT_TYPES
from studio.providers.compute import (
    ComputeClient,
    ComputeConfig,
    ComputeUnavailable,
    RemoteImage,
    RemoteTask,
    TaskRejected,
    build_task,
)
from studio.providers.local import RenderedImage

logger = logging.getLogger(__name__)

MIN_POLL_SECONDS = 1.0
MAX_POLL_SECONDS = 15.0
MAX_FAILURES = 3
MAX_TASK_DURATION = timedelta(hours=1)
MAX_PHOTO_SIDE = 2_048
_BACKOFF_FACTOR = 1.4
PROVIDER_ERROR = {
    "category": "provider",
    "message": "The provider could not make the pictures; the credits were returned",
    "retryable": True,
}


class _UnusableResult(ComputeUnavailable):
    """What the task made is not what was ordered."""


class RemoteRunner:
    """Takes steps of claims whose provider is COMPUTE. One per process; share it among threads."""

    def __init__(
        self, database: Database, storage: Storage, compute: ComputeClient, lease_duration: timedelta
    ) -> None:
        self._database, self._storage, self._compute, self._lease_duration = (
            database,
            storage,
            compute,
            lease_duration,
        )

    def step(self, lease: queue.Lease) -> None:
        """Bring the generation one step further and let go of it.

        InputsUnusable when a photograph is gone, Abandoned when the generation is no longer ours.
        """
        with polling.keep_lease(self._database, lease, self._lease_duration):
            self._step(lease)

    def _step(self, lease: queue.Lease) -> None:
        try:
            access = ComputeConfig.from_config(self._load_config(lease))
            if lease.remote.should_stop:
                self._cancel_task(access, lease.remote.task_id)
                polling.finish_stopped(self._database, lease)
            elif lease.remote.task_id is None:
                self._submit(access, lease)
            else:
                self._poll(access, lease, lease.remote.task_id)
        except ComputeUnavailable as failure:
            logger.warning("generation %s is not made by its provider: %s", lease.generation_id, failure)
            if lease.remote.should_stop:
                polling.finish_stopped(self._database, lease)
            else:
                polling.switch_to_fallback(self._database, lease, PROVIDER_ERROR)

    def _load_config(self, lease: queue.Lease) -> dict[str, Any] | None:
        with self._database.transaction(write=False) as reading:
            model = reading.scalar(select(GenerationModel).where(GenerationModel.id == lease.remote.model_id))
        if model is None:
            return None
        return model.fallback_provider_config if lease.remote.fallen_back else model.provider_config

    def _submit(self, access: ComputeConfig, lease: queue.Lease) -> None:
        # A generation is ordered once from each provider, however often the step is repeated.
        key = f"{lease.generation_id}:{2 if lease.remote.fallen_back else 1}"
        order = build_task(
            lease.strategy, lease.inputs, lease.seed, lease.batch_size, _encode_images(self._storage, lease)
        )
        task_id = self._compute.submit(access, key, str(lease.generation_id), order)
        if not polling.schedule_poll(self._database, lease, task_id, _poll_delay(0), progress=0):
            self._cancel_task(access, task_id)

    def _poll(self, access: ComputeConfig, lease: queue.Lease, task_id: str) -> None:
        try:
            task = self._compute.get_task(access, task_id)
            if task.status == "completed":
                self._store_results(lease, task)
                return
        except (TaskRejected, _UnusableResult):
            raise
        except ComputeUnavailable:
            failures = lease.remote.failures + 1
            if failures >= MAX_FAILURES:
                self._cancel_task(access, task_id)
                raise
            logger.warning("a look at generation %s failed", lease.generation_id, exc_info=True)
            polling.schedule_poll(self._database, lease, task_id, _poll_delay(4 * failures), 0, failures)
            return
        if task.status != "running":
            logger.warning("the task of generation %s is %s", lease.generation_id, task.status)
            queue.fail(self._database, lease, PROVIDER_ERROR)
        elif utc_now() - lease.remote.started_at > MAX_TASK_DURATION:
            self._cancel_task(access, task_id)
            raise ComputeUnavailable("the task takes too long")
        else:
            polling.schedule_poll(
                self._database, lease, task_id, _poll_delay(lease.remote.steps), task.progress
            )

    def _store_results(self, lease: queue.Lease, task: RemoteTask) -> None:
        if len(task.images) < lease.batch_size:
            raise _UnusableResult(f"{len(task.images)} pictures came of {lease.batch_size}")
        made = []
        for index, remote in enumerate(task.images[: lease.batch_size]):
            if not polling.renew_lease(self._database, lease, self._lease_duration):
                raise JobAborted
            picture = _to_rendered_image(lease, remote, index, self._compute.fetch_image(remote.url))
            made.append(queue.store_rendered_file(self._storage, lease, picture, to_stored_image(picture)))
        if not queue.try_complete(self._database, self._storage, lease, made):
            logger.warning("generation %s was taken over by another worker", lease.generation_id)

    def _cancel_task(self, access: ComputeConfig, task_id: str | None) -> None:
        """Cancel a task that nobody waits for; if that fails, its pictures are never asked for."""
        if task_id is None:
            return
        try:
            self._compute.cancel(access, task_id)
        except ComputeUnavailable as failure:
            logger.warning("a task of a provider could not be canceled: %s", failure)


def _poll_delay(steps: int) -> timedelta:
    """Longer with every look, and never the same for two generations that began together."""
    seconds = min(MAX_POLL_SECONDS, MIN_POLL_SECONDS * _BACKOFF_FACTOR ** min(steps, 20))
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, hides nothing


def _encode_images(storage: Storage, lease: queue.Lease) -> dict[str, str]:
    """The order's pictures as data: addresses, so that the other side needs no way back to us."""
    scene = lease.inputs["scene"]
    sources = {
        "input_image_url": scene.get("source") or scene.get("product"),
        "reference_image_url": scene.get("subject"),
    }
    return {name: _to_data_url(storage, file) for name, file in sources.items() if file}


def _to_data_url(storage: Storage, file: dict[str, Any]) -> str:
    try:
        data = storage.read(media_key(UUID(file["media_id"]), file["extension"]))
        with open_stored(data) as picture:
            content_type = CONTENT_TYPES[file["extension"]]
            if max(picture.size) > MAX_PHOTO_SIDE:
                picture.thumbnail((MAX_PHOTO_SIDE, MAX_PHOTO_SIDE))
                smaller = io.BytesIO()
                file_format = "png" if "A" in picture.mode else "jpeg"
                picture.save(smaller, file_format, quality=92)
                data, content_type = smaller.getvalue(), f"image/{file_format}"
    except (NotFound, OSError) as error:
        raise UnusableInputs from error
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def _to_rendered_image(lease: queue.Lease, remote: RemoteImage, index: int, data: bytes) -> RenderedImage:
    """The fetched bytes, checked as an upload is, as a judged picture of the size and format ordered."""
    # Here, because servers start without OpenCV.
    from studio.rendering import RENDERER_VERSION, cut_out_product, downscale, refine

    scene = lease.inputs["scene"]
    try:
        received = normalise(data)
    except DomainError as error:
        raise _UnusableResult(f"what came is no picture: {error}") from error
    with open_stored(received.data) as picture:
        picture.load()
        rendering = refine(
            picture,
            width=scene["width"],
            height=scene["height"],
            file_format=scene["file_format"],
            quality=scene["quality"],
            strength=0.0,
            cut_out=cut_out_product(downscale(picture)),
            framing=scene["framing"],
        )
    return RenderedImage(
        image=rendering.image,
        content_type=rendering.content_type,
        width=rendering.width,
        height=rendering.height,
        seed=lease.seed + index if remote.seed is None else remote.seed,
        quality=rendering.quality.as_dict(),
        cut_out=None,
        settings={"received_width": received.width, "received_height": received.height},
        unused=frozenset(),
        renderer_version=RENDERER_VERSION,
    )
