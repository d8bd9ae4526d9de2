"""Add the images that imports wait for: fetch each from its URL or read it from the ZIP file, and store it.

A few threads of a process work at the same time; each holds one image. Any number of processes may work on
one database. If a process dies, another one takes its images over once their leases have expired: an image is
added in one transaction, so it is added once.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from uuid import UUID

from db.engine import is_database_unavailable
from db.errors import Conflict, NotFound
from db.session import Database
from studio import leases
from studio.fair_slots import Requester, account_name, set_current_requester
from studio.http_client import SafeHttpClient
from studio.imports import image_queue
from studio.imports.archive import ImageArchive
from studio.imports.image_queue import ImportEnded, Lease
from studio.imports.problems import ImportFileError, describe_error
from studio.media.fetching import fetch_image, may_succeed_later, rejects_unusable_images
from studio.media.images import normalise
from studio.media.storage import Storage, data_file_key, is_storage_unavailable, is_storage_working
from studio.media.stored_image import StoredImage

logger = logging.getLogger(__name__)

THREADS = 4
"""Threads of one process. Each holds an image of up to 50 MB; the pixels of two are in memory at a time."""
MAX_ARCHIVES = THREADS
"""ZIP files that are open at the same time. The directory of one takes up to 20 MB."""
TIMEOUT_SECONDS = 60.0
"""The time in which a server must have sent an image."""
BACKOFF_SECONDS = (5, 20, 80)
"""The pauses between the attempts to fetch an image."""
_running = threading.Lock()


def run_pending_images(
    database: Database,
    storage: Storage,
    http_client: SafeHttpClient,
    lease_duration: timedelta,
    max_seconds: float = float("inf"),
) -> None:
    """Add images of imports until none is available or the time is over, unless a thread does so already.

    Raises:
        OSError: The storage is unreachable or full. The images stay in the queue.
    """
    # The threads and memory of a process are bounded, however many threads run this task.
    if not _running.acquire(blocking=False):
        return
    try:
        ImportImageRunner(database, storage, http_client, lease_duration).run_pending(max_seconds)
    finally:
        _running.release()


class ImportImageRunner:
    """Adds the images of imports.

    Args:
        database: The database of the queue and of the products.
        storage: The storage of images and ZIP files.
        http_client: Fetches the images of URLs.
        lease_duration: How long a lease lasts; it is renewed while an image is fetched and decoded.
    """

    def __init__(
        self, database: Database, storage: Storage, http_client: SafeHttpClient, lease_duration: timedelta
    ) -> None:
        self._database, self._storage, self._http_client = database, storage, http_client
        self._lease_duration = lease_duration
        self._archives = _Archives(storage)

    def run_pending(self, max_seconds: float = float("inf")) -> None:
        """Add images until none is available or the time is over.

        Raises:
            OSError: The storage is unreachable or full. The images stay in the queue.
        """
        ends_at = time.monotonic() + max_seconds
        count = image_queue.count_available(self._database, THREADS)
        if count == 0:
            return
        self._storage.check()
        with ThreadPoolExecutor(count, thread_name_prefix="import-images") as pool:
            runs = [pool.submit(self._run_until, ends_at) for _ in range(count)]
        for run in runs:
            run.result()

    def _run_until(self, ends_at: float) -> None:
        while time.monotonic() < ends_at and image_queue.count_available(self._database, 1):
            lease = image_queue.lease_next(self._database, leases.new_token(), self._lease_duration)
            if lease is not None:
                self._run(lease)

    def _run(self, lease: Lease) -> None:
        # Images of one account take turns with those that it uploads, and with other accounts.
        set_current_requester(Requester.of(account_name(lease.owner_id)))
        name, release = (
            f"image {lease.job_id} of an import",
            partial(image_queue.release, self._database, lease),
        )
        renew = partial(image_queue.renew, self._database, lease, self._lease_duration)
        try:
            with leases.keep(renew, self._lease_duration, name):
                image = self._load(lease)
            image_queue.try_add(self._database, self._storage, lease, image)
        except ImportEnded:
            pass
        except (Conflict, NotFound) as error:
            self._record(lease, error)
        except Exception as error:
            if is_database_unavailable(error):
                leases.release_after_outage(release, self._lease_duration, name)
                raise
            if is_storage_unavailable(error):
                release(counts_attempt=is_storage_working(self._storage))
                raise
            logger.exception("%s failed", name)
            release(counts_attempt=True)

    def _load(self, lease: Lease) -> StoredImage:
        """Return the normalised image of a job.

        Raises:
            TargetNotAllowed, ImageNotFetched, ImageNotUsable: The image cannot be fetched or decoded.
            NotFound: The ZIP file, or the entry in it, does not exist.
        """
        if lease.is_url:
            return fetch_image(self._http_client, lease.source, TIMEOUT_SECONDS)
        if lease.archive_id is None:
            raise NotFound("The import has no ZIP file")
        content = self._archives.open(lease.archive_id).read(lease.source)
        with rejects_unusable_images():
            return normalise(content)

    def _record(self, lease: Lease, error: Conflict | NotFound) -> None:
        """Record why an image was not added, or release it for another attempt."""
        if (
            lease.attempts < image_queue.MAX_ATTEMPTS
            and isinstance(error, Conflict)
            and may_succeed_later(error)
        ):
            delay = timedelta(seconds=BACKOFF_SECONDS[lease.attempts - 1])
            image_queue.release(self._database, lease, delay)
            return
        with suppress(ImportEnded):
            image_queue.fail(self._database, lease, describe_error(error))


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
