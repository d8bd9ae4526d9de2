"""Render the images of one generation: prepare once, render in parallel, renew the lease meanwhile.

No transaction is open while images are rendered.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from studio.cutouts import queue as cutout_queue
from studio.cutouts.queue import CutoutLease, MadeCutout
from studio.cutouts.requests import hash_inputs
from studio.cutouts.worker import MakeCutout, make_or_await, make_with_renderer
from studio.generations.worker import queue
from studio.infrastructure.storage import Storage
from studio.infrastructure.telemetry.traces import start_span
from studio.media.digital_source_type import build_packet
from studio.media.images import open_stored
from studio.media.stored_image import StoredImage
from studio.media.xmp_embedding import embed_xmp
from studio.providers.base import Renderer, load_local_renderer
from studio.providers.local import RenderedImage
from studio.queue.row_queue import Interrupted
from studio.queue.running import Heartbeat, Worker

Result = TypeVar("Result")

CHECK_SECONDS = 0.1
"""How soon the end of the process or a cancellation is noticed."""
PREPARE_SHARE = 0.2
"""The share of the progress that the preparation counts for."""
_EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}


class RenderJob:
    """The rendering of one leased generation.

    Args:
        worker: The process.
        render_pool: The threads that render.
        lease: The lease of the generation.
        heartbeat: Renews the lease meanwhile.
        renderer: The renderer; by default that of the provider LOCAL_STUDIO.
    """

    def __init__(
        self,
        worker: Worker,
        render_pool: Executor,
        lease: queue.GenerationLease,
        heartbeat: Heartbeat,
        renderer: Renderer | None = None,
    ) -> None:
        self._worker, self._storage, self._render_pool = worker, worker.storage, render_pool
        self._lease, self._heartbeat = lease, heartbeat
        self._renderer = renderer or load_local_renderer()
        # Another renderer, such as that of the mock server, makes none that the local one could use.
        self._makes_cutouts = renderer is None
        self._progress_shares = [0.0] * lease.batch_size
        self._is_prepared = False
        self._canceled = threading.Event()

    def run(self) -> list[queue.RenderedFile]:
        """Return the rendered images in order, with their files stored.

        Raises:
            Interrupted: The process ends, or the generation was canceled or belongs to another worker.
            UnusableInputs: An input file is missing or cannot be read.
        """
        try:
            # In this thread: while it waits for another worker, the pool renders other generations.
            scene = add_stored_cutout(
                self._worker,
                self._lease.inputs["scene"],
                self._renderer.get_cut_out_version(),
                self._heartbeat.check,
                self._make_cutout if self._makes_cutouts else None,
            )
            context = self._wait_for_all([self._submit(partial(self._prepare, scene))])[0]
            self._is_prepared = True
            return self._wait_for_all(
                [
                    self._submit(partial(self._render, context, index))
                    for index in range(self._lease.batch_size)
                ]
            )
        finally:
            self._canceled.set()

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        # With a copy of the context, so that log lines and spans belong to this generation.
        return self._render_pool.submit(copy_context().run, work)

    @start_span("make_cutout")
    def _make_cutout(self, storage: Storage, lease: CutoutLease) -> MadeCutout:
        return self._wait_for_all([self._submit(partial(make_with_renderer, storage, lease))])[0]

    @start_span("set_stage")
    def _prepare(self, scene: Mapping[str, Any]) -> Any:
        self._check_canceled()
        with queue.reading_inputs():
            return self._renderer.prepare_context(
                self._storage, self._lease.strategy, scene, self._check_canceled
            )

    @start_span("make_image")
    def _render(self, context: Any, index: int) -> queue.RenderedFile:
        lease, report_progress = self._lease, partial(self._report_progress, index)
        report_progress(0.0)
        if lease.agentic:
            request = lease.inputs["asked"]
            max_attempts, min_score = request["max_attempts"], request["min_confidence_score"]
            rendered = self._renderer.render_best_image(
                context, lease.seed, index, max_attempts, min_score, report_progress
            )
        else:
            rendered = self._renderer.render_image(context, lease.seed, index, report_progress)
        return queue.store_rendered_file(self._storage, lease, rendered, to_stored_image(rendered))

    def _check_canceled(self) -> None:
        if self._canceled.is_set():
            raise Interrupted
        self._heartbeat.check()

    def _report_progress(self, index: int, share: float) -> None:
        self._check_canceled()
        self._progress_shares[index] = max(self._progress_shares[index], min(1.0, share))

    def _report_total(self) -> None:
        rendered = sum(self._progress_shares) / len(self._progress_shares)
        done = PREPARE_SHARE + (1 - PREPARE_SHARE) * rendered if self._is_prepared else PREPARE_SHARE / 2
        self._heartbeat.report(int(100 * done), 100)

    def _wait_for_all(self, futures: Sequence[Future[Result]]) -> list[Result]:
        """Return all results; until then, report the progress, and stop if the work must."""
        pending: set[Future[Result]] = set(futures)
        try:
            while pending:
                done, pending = wait(pending, timeout=CHECK_SECONDS, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                self._report_total()
        except BaseException:
            for future in pending:
                future.cancel()
            raise
        return [future.result() for future in futures]


def add_stored_cutout(
    worker: Worker,
    scene: Mapping[str, Any],
    renderer_version: str,
    check: Callable[[], None],
    make: MakeCutout | None,
) -> Mapping[str, Any]:
    """Return the inputs of the renderer with the stored cut-out of the product's photo.

    If it is queued, it is made here, once for this generation and for everything that uses it later. Without
    a stored one, the renderer cuts the product out for this generation only. A cut-out that another version
    of the renderer made is queued again.

    Args:
        worker: The process.
        scene: The fixed inputs of the generation.
        renderer_version: The version of cut-outs that the renderer can use.
        check: Called while another worker makes the cut-out. If it raises, the wait ends.
        make: Makes a cut-out; None to use one only if it is stored.

    Raises:
        OSError: The storage is unreachable or full.
    """
    photo = scene.get("product")
    if photo is None or "product_image_id" not in photo:
        return scene
    mask, image_id = photo.get("mask"), UUID(photo["product_image_id"])
    input_hash = hash_inputs(photo["media_id"], photo.get("region"), mask and mask["media_id"])
    stored = cutout_queue.find_made(worker.database, image_id, input_hash)
    if stored is not None and stored["renderer_version"] != renderer_version:
        cutout_queue.request_outdated(worker.database, image_id, renderer_version)
        stored = None
    if stored is None and make is not None:
        make_or_await(worker, image_id, input_hash, check, make)
        stored = cutout_queue.find_made(worker.database, image_id, input_hash)
    if stored is None or stored["renderer_version"] != renderer_version:
        return scene
    return {**scene, "product": {**photo, "cut_out": stored}}


def to_stored_image(image: RenderedImage) -> StoredImage:
    """Return a rendered image as a stored image, which says how it was made. Its pixels stay as they are."""
    # Imported here, because servers start without Pillow.
    from studio.media.normalization import dominant_color

    with open_stored(image.image) as opened:
        opened.draft("RGB", (192, 192))
        color = dominant_color(opened)
    marked = embed_xmp(image.image, build_packet(image.source_type))
    return StoredImage(
        data=marked,
        extension=_EXTENSIONS[image.content_type],
        width=image.width,
        height=image.height,
        has_alpha=False,
        dominant_color=color,
        content_hash=hashlib.sha256(marked).hexdigest(),
    )
