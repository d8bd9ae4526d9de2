"""Add the images that imports wait for: fetch each from its URL or read it from the ZIP file, and store it.

A few threads of a process work at the same time; each holds one image. Any number of processes may work on
one database. If a process dies, another one takes its images over once their leases have expired: an image is
added in one transaction, so it is added once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import UUID

from db.errors import Conflict, NotFound
from studio.imports.archive import ImageArchive
from studio.imports.image_queue import IMAGES, ImageLease, add_image
from studio.imports.problems import ImportFileError, describe_error
from studio.infrastructure.fair_slots import Requester, account_name, set_current_requester
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import Storage, data_file_key
from studio.media.fetching import fetch_image, may_succeed_later, rejects_unusable_images
from studio.media.images import normalize
from studio.media.ingest import store_image_file
from studio.media.stored_image import StoredImage
from studio.queue.running import (
    AttemptFailed,
    Heartbeat,
    Worker,
    run_leased,
    run_pending,
)

THREADS = 4
"""Threads of one process. Each holds an image of up to 50 MB; the pixels of two are in memory at a time."""
MAX_ARCHIVES = THREADS
"""ZIP files that are open at the same time. The directory of one takes up to 20 MB."""
TIMEOUT_SECONDS = 60.0
"""The time in which a server must have sent an image."""
_running = threading.Lock()


def run_pending_images(worker: Worker, http_client: SafeHttpClient) -> None:
    """Add images of imports until none is available or the time is over, unless a thread does so already.

    Args:
        worker: The process.
        http_client: Fetches the images of URLs.

    Raises:
        OSError: The storage is unreachable or full. The images stay in the queue.
    """
    # The threads and memory of a process are bounded, however many threads run this task.
    if not _running.acquire(blocking=False):
        return
    try:
        count = IMAGES.count_available(worker.database, THREADS)
        if count == 0:
            return
        run = ImageRunner(worker, http_client).run
        with ThreadPoolExecutor(count, thread_name_prefix="import-images") as pool:
            runs = [pool.submit(run_pending, worker, IMAGES, run) for _ in range(count)]
        for future in runs:
            future.result()
    finally:
        _running.release()


class ImageRunner:
    """Adds images of imports to their products. Threads can share it."""

    def __init__(self, worker: Worker, http_client: SafeHttpClient) -> None:
        self._worker, self._http_client = worker, http_client
        self._archives = _Archives(worker.storage)

    def run(self, lease: ImageLease) -> bool:
        """Add a leased image; return whether its end was recorded."""
        # Images of one account take turns with those that it uploads, and with other accounts.
        set_current_requester(Requester.of(account_name(lease.owner_id)))
        storage = self._worker.storage

        def work(_heartbeat: Heartbeat) -> Callable[[], None]:
            image = self._load(lease)
            stored_id = store_image_file(storage, lease.organization_id or lease.owner_id, image)
            return partial(add_image, storage, lease, image, stored_id)

        return run_leased(self._worker, IMAGES, lease, work)

    def _load(self, lease: ImageLease) -> StoredImage:
        """Return the normalized image of a job.

        Raises:
            AttemptFailed: The image cannot be fetched now.
            TargetNotAllowed, ImageNotFetched, ImageNotUsable: The image cannot be fetched or decoded.
            NotFound: The ZIP file, or the entry in it, does not exist.
        """
        if lease.is_url:
            try:
                return fetch_image(self._http_client, lease.source, TIMEOUT_SECONDS)
            except Conflict as error:
                if may_succeed_later(error):
                    raise AttemptFailed(describe_error(error)) from error
                raise
        if lease.archive_id is None:
            raise NotFound("The import has no ZIP file")
        content = self._archives.open(lease.archive_id).read(lease.source)
        with rejects_unusable_images():
            return normalize(content)


class _Archives:
    """Keeps ZIP files open while they are used: a directory is read once, not once per image."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._opened: dict[UUID, ImageArchive] = {}

    def open(self, file_id: UUID) -> ImageArchive:
        """Return the open ZIP file of an import.

        Raises:
            NotFound: The file does not exist, or is not a ZIP file.
        """
        with self._lock:
            archive = self._opened.pop(file_id, None)
            if archive is None:
                try:
                    archive = ImageArchive(self._storage.path(data_file_key(file_id)))
                except ImportFileError as error:
                    raise NotFound(error.problem["detail"]) from error
            self._opened[file_id] = archive
            if len(self._opened) > MAX_ARCHIVES:
                # The one that was not used for longest. It is closed when no thread reads it any more.
                del self._opened[next(iter(self._opened))]
            return archive
