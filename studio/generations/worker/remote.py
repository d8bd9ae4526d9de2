"""Run one step of a generation that a Compute API renders: submit, poll, fetch the results or cancel.

A step takes seconds, and `polling.py` schedules the next one. Another worker repeats an interrupted step: the
idempotency key prevents a second task, and files are stored under names that are derived from their content.
"""

from __future__ import annotations

import base64
import io
import logging
import random
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import utc_now
from db.errors import DomainError
from db.models.generation_models import GenerationModel
from db.session import Database
from studio.generations.worker import polling, queue
from studio.generations.worker.queue import reading_inputs
from studio.generations.worker.render_job import to_stored_image
from studio.infrastructure.storage import Storage, media_key
from studio.media.digital_source_type import RENDERED, parse_packet
from studio.media.images import normalize, open_stored
from studio.media.stored_image import CONTENT_TYPES
from studio.providers.compute import (
    SOURCE_TYPE,
    ComputeClient,
    ComputeConfig,
    ComputeUnavailable,
    RemoteImage,
    RemoteTask,
    TaskRejected,
    build_task,
)
from studio.providers.local import RenderedImage
from studio.queue.row_queue import LeaseLost
from studio.queue.running import Heartbeat, Record, Worker

logger = logging.getLogger(__name__)

MIN_POLL_SECONDS = 1.0
MAX_POLL_SECONDS = 15.0
MAX_FAILURES = 3
MAX_TASK_DURATION = timedelta(hours=1)
MAX_PHOTO_SIDE = 2_048
_BACKOFF_FACTOR = 1.4
PROVIDER_ERROR = {
    "category": "provider",
    "message": "The provider could not render the images; the credits were refunded",
    "retryable": True,
}


class _UnusableResult(ComputeUnavailable):
    """The results of the task do not match the generation."""


class RemoteRunner:
    """Runs the steps of generations whose provider is COMPUTE. One per process; threads can share it."""

    def __init__(self, worker: Worker, compute: ComputeClient) -> None:
        self._database, self._storage, self._compute = worker.database, worker.storage, compute

    def step(self, lease: queue.GenerationLease, heartbeat: Heartbeat) -> Record | None:
        """Run one step of the generation; return the write that completes it, or None if it is released.

        Raises:
            UnusableInputs: An input image is missing or cannot be read.
            Interrupted: The generation was canceled, or belongs to another worker.
        """
        try:
            config = ComputeConfig.from_config(load_provider_config(self._database, lease))
            if lease.remote.should_stop:
                self._cancel_task(config, lease.remote.task_id)
                polling.finish_stopped(self._database, lease)
            elif lease.remote.task_id is None:
                self._submit(config, lease)
            else:
                return self._poll(config, lease, lease.remote.task_id, heartbeat)
        except ComputeUnavailable as error:
            logger.warning("the provider of generation %s failed: %s", lease.row_id, error)
            if lease.remote.should_stop:
                polling.finish_stopped(self._database, lease)
            else:
                polling.switch_to_fallback(self._database, lease, PROVIDER_ERROR)
        return None

    def _submit(self, config: ComputeConfig, lease: queue.GenerationLease) -> None:
        # One key per provider: a repeated step does not create a second task.
        key = f"{lease.row_id}:{2 if lease.remote.fallen_back else 1}"
        task = build_task(
            lease.strategy, lease.inputs, lease.seed, lease.batch_size, _encode_images(self._storage, lease)
        )
        task_id = self._compute.submit(config, key, str(lease.row_id), task)
        try:
            polling.schedule_poll(self._database, lease, task_id, _poll_delay(0), progress=0)
        except LeaseLost:
            self._cancel_task(config, task_id)
            raise

    def _poll(
        self, config: ComputeConfig, lease: queue.GenerationLease, task_id: str, heartbeat: Heartbeat
    ) -> Record | None:
        try:
            task = self._compute.get_task(config, task_id)
            if task.status == "completed":
                return self._store_results(lease, task, heartbeat)
        except (TaskRejected, _UnusableResult):
            raise
        except ComputeUnavailable:
            failures = lease.remote.failures + 1
            if failures >= MAX_FAILURES:
                self._cancel_task(config, task_id)
                raise
            logger.warning("a poll of generation %s failed", lease.row_id, exc_info=True)
            polling.schedule_poll(self._database, lease, task_id, _poll_delay(4 * failures), 0, failures)
            return None
        if task.status != "running":
            logger.warning("the task of generation %s is %s", lease.row_id, task.status)
            queue.GENERATIONS.fail(self._database, lease, PROVIDER_ERROR)
        elif utc_now() - lease.remote.started_at > MAX_TASK_DURATION:
            self._cancel_task(config, task_id)
            raise ComputeUnavailable("the task takes too long")
        else:
            polling.schedule_poll(
                self._database, lease, task_id, _poll_delay(lease.remote.steps), task.progress
            )
        return None

    def _store_results(self, lease: queue.GenerationLease, task: RemoteTask, heartbeat: Heartbeat) -> Record:
        if len(task.images) < lease.batch_size:
            raise _UnusableResult(f"the task has {len(task.images)} images instead of {lease.batch_size}")
        files = []
        for index, remote in enumerate(task.images[: lease.batch_size]):
            heartbeat.check()
            rendered = _to_rendered_image(lease, remote, index, self._compute.fetch_image(remote.url))
            files.append(queue.store_rendered_file(self._storage, lease, rendered, to_stored_image(rendered)))
        return partial(queue.complete_generation, self._storage, lease, files)

    def _cancel_task(self, config: ComputeConfig, task_id: str | None) -> None:
        """Cancel a task whose results are not needed. A failure is logged: the results are never fetched."""
        if task_id is None:
            return
        try:
            self._compute.cancel(config, task_id)
        except ComputeUnavailable as error:
            logger.warning("a remote task could not be canceled: %s", error)


def load_provider_config(database: Database, lease: queue.GenerationLease) -> dict[str, Any] | None:
    """Return the configuration of the provider that renders a leased generation, with its secrets."""
    with database.transaction(write=False) as reading:
        model = reading.scalar(select(GenerationModel).where(GenerationModel.id == lease.remote.model_id))
    if model is None:
        return None
    return model.fallback_provider_config if lease.remote.fallen_back else model.provider_config


def _poll_delay(steps: int) -> timedelta:
    """Return the time until the next poll: it grows with each step and is randomized to spread the load."""
    seconds = min(MAX_POLL_SECONDS, MIN_POLL_SECONDS * _BACKOFF_FACTOR ** min(steps, 20))
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, hides nothing


def _encode_images(storage: Storage, lease: queue.GenerationLease) -> dict[str, str]:
    """Return the input images as `data:` URLs: the provider needs no access to this server."""
    scene = lease.inputs["scene"]
    sources = {
        "input_image_url": scene.get("source") or scene.get("product"),
        "reference_image_url": scene.get("subject"),
    }
    return {name: _to_data_url(storage, file) for name, file in sources.items() if file}


def _to_data_url(storage: Storage, file: dict[str, Any]) -> str:
    with reading_inputs():
        data = storage.read(media_key(UUID(file["media_id"]), file["extension"]))
        with open_stored(data) as image:
            content_type = CONTENT_TYPES[file["extension"]]
            if max(image.size) > MAX_PHOTO_SIDE:
                image.thumbnail((MAX_PHOTO_SIDE, MAX_PHOTO_SIDE))
                buffer = io.BytesIO()
                file_format = "png" if "A" in image.mode else "jpeg"
                image.save(buffer, file_format, quality=92)
                data, content_type = buffer.getvalue(), f"image/{file_format}"
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def _to_rendered_image(
    lease: queue.GenerationLease, remote: RemoteImage, index: int, data: bytes
) -> RenderedImage:
    """Return fetched bytes, checked like an upload, as a scored image of the requested size and format."""
    # Imported here, because servers start without OpenCV.
    from studio.providers.local_renderer import fit_to_scene
    from studio.rendering import RENDERER_VERSION

    try:
        received = normalize(data)
    except DomainError as error:
        raise _UnusableResult(f"the result is not an image: {error}") from error
    with open_stored(received.data) as image:
        image.load()
        # Read from the normalized file: nothing else of the provider's metadata is left in it.
        source_type = parse_packet(image.info.get("xmp"))
        rendering = fit_to_scene(image, lease.inputs["scene"])
    return RenderedImage(
        image=rendering.image,
        content_type=rendering.content_type,
        width=rendering.width,
        height=rendering.height,
        seed=lease.seed + index if remote.seed is None else remote.seed,
        quality=rendering.quality.as_dict(),
        cut_out=None,
        settings={"received_width": received.width, "received_height": received.height},
        # A rendered image is no capture: such a term comes from the photo that was sent.
        source_type=source_type if source_type in RENDERED else SOURCE_TYPE,
        unused=frozenset(),
        renderer_version=RENDERER_VERSION,
        compliance=rendering.compliance,
        warnings=list(rendering.warnings),
    )
