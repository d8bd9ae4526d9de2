"""Run generations whose provider speaks the Images API: request images, finish and store them.

The API has no tasks to poll: a request lasts until its images are made, and holds its worker thread
meanwhile. A generation that has to wait (a rate limit, a failed server) is parked like one that is polled,
and holds none. An interrupted step is repeated by another worker, with the same idempotency key.
"""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from functools import partial

from studio.cutouts.worker import make_with_renderer
from studio.generations.worker import polling, queue
from studio.generations.worker.image_edits import NothingToPreserve, PreparedEdit, finish_image, prepare_edit
from studio.generations.worker.remote import PROVIDER_ERROR, load_provider_config
from studio.generations.worker.render_job import add_stored_cutout, to_stored_image
from studio.providers.openai_images import ImagesConfig, ImagesServer, ImagesUnavailable
from studio.providers.openai_images_client import (
    ContentRejected,
    ImagesClient,
    RateLimited,
    ReceivedImage,
)
from studio.queue.row_queue import Interrupted
from studio.queue.running import Heartbeat, Record, Worker

logger = logging.getLogger(__name__)

MIN_RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 60.0
REJECTED_ERROR = {
    "category": "input",
    "message": "The provider rejected the prompt or the images for their content; the credits were refunded",
    "retryable": False,
}
NOT_CUT_OUT_ERROR = {
    "category": "input",
    "message": "What has to be preserved has no clear outline in the image: use another image or set"
    " preserve_product to false; the credits were refunded",
    "retryable": False,
}


class ImagesRunner:
    """Runs the steps of generations whose provider is OPENAI_IMAGES. One per process, shared by threads."""

    def __init__(self, worker: Worker, client: ImagesClient, server: ImagesServer) -> None:
        self._worker, self._database, self._storage = worker, worker.database, worker.storage
        self._client, self._server = client, server

    def step(self, lease: queue.GenerationLease, heartbeat: Heartbeat) -> Record | None:
        """Render the generation; return the write that completes it, or None if it is parked or has ended.

        Raises:
            UnusableInputs: An input image is missing or cannot be read.
            Interrupted: The generation was canceled, or belongs to another worker.
        """
        if lease.remote.should_stop:
            polling.finish_stopped(self._database, lease)
            return None
        try:
            return partial(queue.complete_generation, self._storage, lease, self._render(lease, heartbeat))
        except ContentRejected as error:
            # Not for the fallback: what one provider rejects is not sent to another.
            logger.warning("the content of generation %s was rejected: %s", lease.row_id, error)
            queue.GENERATIONS.fail(self._database, lease, REJECTED_ERROR)
        except NothingToPreserve:
            queue.GENERATIONS.fail(self._database, lease, NOT_CUT_OUT_ERROR)
        except ImagesUnavailable as error:
            logger.warning("the provider of generation %s failed: %s", lease.row_id, error)
            self._retry_or_give_up(lease, error)
        return None

    def _render(self, lease: queue.GenerationLease, heartbeat: Heartbeat) -> list[queue.RenderedFile]:
        config = ImagesConfig.from_config(load_provider_config(self._database, lease), self._server)
        # Imported here, because servers start without OpenCV.
        from studio.rendering import get_cut_out_version

        version = get_cut_out_version()
        scene = add_stored_cutout(
            self._worker, lease.inputs["scene"], version, heartbeat.check, make_with_renderer
        )
        edit = prepare_edit(self._storage, lease, scene, config)
        files: list[queue.RenderedFile] = []
        while len(files) < lease.batch_size:
            for received in self._request(lease, config, edit, len(files)):
                rendered = finish_image(lease, config, edit, received, len(files))
                files.append(
                    queue.store_rendered_file(self._storage, lease, rendered, to_stored_image(rendered))
                )
        return files

    def _request(
        self, lease: queue.GenerationLease, config: ImagesConfig, edit: PreparedEdit, done: int
    ) -> list[ReceivedImage]:
        """Return at least one of the images that are missing; servers may make fewer than requested."""
        # A canceled generation must not cause further costs.
        progress = 99 * done // lease.batch_size
        if not queue.GENERATIONS.renew(self._database, lease, self._worker.lease_duration, progress):
            raise Interrupted
        key = f"{lease.row_id}:{2 if lease.remote.fallen_back else 1}:{done}"
        count = min(lease.batch_size - done, config.max_images)
        return self._client.render(config, edit.request, count, key)

    def _retry_or_give_up(self, lease: queue.GenerationLease, error: ImagesUnavailable) -> None:
        failures = lease.remote.failures + 1
        if failures > error.max_failures:
            polling.switch_to_fallback(self._database, lease, PROVIDER_ERROR)
            return
        delay = _retry_delay(failures, error.retry_after if isinstance(error, RateLimited) else None)
        # No task of the provider: the name makes the generation wait like one that is polled.
        task_id = f"images:{lease.row_id}"
        polling.schedule_poll(self._database, lease, task_id, delay, 0, failures)


def _retry_delay(failures: int, retry_after: float | None) -> timedelta:
    """Return the time until the next request: what the server asks for, or more with each failure."""
    backoff = min(MAX_RETRY_SECONDS, MIN_RETRY_SECONDS * 2 ** (failures - 1))
    spread = random.uniform(1.0, 1.3)  # noqa: S311 - spreads load, hides nothing
    return timedelta(seconds=max(retry_after or 0.0, backoff) * spread)
