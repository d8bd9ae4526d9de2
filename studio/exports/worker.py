"""Write the archives of pending exports, one after the other, outside of transactions.

Any number of processes may run this on one database. If a process dies, another one writes the same archive
again once the lease has expired.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import BinaryIO

from db.engine import is_database_unavailable
from db.session import Database
from studio import leases
from studio.exports import queue
from studio.exports.archive import CHUNK_BYTES, SourceFileMissing, write_archive
from studio.exports.content_credentials import SignFile, SigningFailed
from studio.media.storage import (
    Storage,
    export_folder,
    export_key,
    is_storage_unavailable,
    is_storage_working,
)

logger = logging.getLogger(__name__)

LEASE_DURATION = timedelta(seconds=60)
PROGRESS_SECONDS = 1.0


class ExportAborted(Exception):
    """The export was deleted, or another process has taken it over."""


def run_pending_exports(
    database: Database,
    storage: Storage,
    lease_duration: timedelta = LEASE_DURATION,
    sign_file: SignFile | None = None,
) -> int:
    """Run all pending exports and return how many were completed. `sign_file` signs each image.

    Raises:
        OSError: The storage is unreachable or full. The exports stay pending.
    """
    completed = 0
    while queue.count_available(database, 1):
        storage.check()
        lease = queue.lease_next(database, leases.new_token(), lease_duration)
        if lease is not None:
            completed += run_export(database, storage, lease, lease_duration, sign_file)
    return completed


def run_export(
    database: Database,
    storage: Storage,
    lease: queue.Lease,
    lease_duration: timedelta,
    sign_file: SignFile | None = None,
) -> bool:
    """Write the archive of a leased export and record it; return whether this call completed the export.

    Raises:
        OSError: The storage is unreachable or full; the export is pending again.
    """

    def write(file: BinaryIO, heartbeat: Heartbeat) -> None:
        report_progress = partial(heartbeat, total=len(lease.entries))
        write_archive(file, storage, lease.shooting, lease.entries, report_progress, sign_file)

    complete = partial(queue.try_complete, database, lease)
    return run_leased(database, storage, lease, lease_duration, write, complete)


def run_leased(
    database: Database,
    storage: Storage,
    lease: queue.LeasedArchive,
    lease_duration: timedelta,
    write: Callable[[BinaryIO, Heartbeat], None],
    try_complete: Callable[[int, str], bool],
) -> bool:
    """Write the archive of a leased row and record it; return whether this call completed it.

    Args:
        database: The database of the queue.
        storage: Where the archive is stored.
        lease: The lease.
        lease_duration: How long each renewal of the lease lasts.
        write: Writes the archive to a seekable file and calls the heartbeat meanwhile.
        try_complete: Records the size and the SHA-256 of the archive; returns whether it was still leased.

    Raises:
        OSError: The storage is unreachable or full; the row is pending again.
        SQLAlchemyError: The database is unreachable; the row is pending again, or leased if the outage lasts.
    """
    name = f"{lease.model.__tablename__} {lease.export_id}"
    try:
        file_size, content_hash = _write_file(database, storage, lease, lease_duration, write)
        if try_complete(file_size, content_hash):
            _delete_partial_files(storage, lease)
            return True
    except ExportAborted:
        pass
    except SourceFileMissing:
        logger.warning("%s failed: a source file is missing", name, exc_info=True)
        queue.fail(database, lease, queue.INPUT_ERROR)
    except SigningFailed:
        logger.exception("%s failed: a file was not signed", name)
        queue.fail(database, lease, queue.SIGNING_ERROR)
    except Exception as error:
        if is_database_unavailable(error):
            leases.release_after_outage(partial(queue.release, database, lease), lease_duration, name)
            raise
        if is_storage_unavailable(error):
            # If the storage works, the cause can be this export: an archive that does not fit, a broken file.
            queue.release(database, lease, counts_attempt=is_storage_working(storage))
            raise
        # The deletion of an export removes the folder that the archive is being written to.
        if queue.export_exists(database, lease):
            logger.exception("%s failed", name)
            queue.fail(database, lease, queue.INTERNAL_ERROR)
    if not queue.export_exists(database, lease):
        storage.delete_folder(export_folder(lease.export_id))
    return False


def _write_file(
    database: Database,
    storage: Storage,
    lease: queue.LeasedArchive,
    lease_duration: timedelta,
    write: Callable[[BinaryIO, Heartbeat], None],
) -> tuple[int, str]:
    """Write the archive to its final place, and return its size and SHA-256."""
    heartbeat = Heartbeat(database, lease, lease_duration)
    with storage.open_writer(export_key(lease.export_id)) as file:
        write(file, heartbeat)
        # The hash needs a second pass: zipfile seeks back to fill in sizes.
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            heartbeat(1, total=1)
        return file.tell(), digest.hexdigest()


class Heartbeat:
    """Renews the lease and records the progress, at most once per second."""

    def __init__(self, database: Database, lease: queue.LeasedArchive, lease_duration: timedelta) -> None:
        self._database, self._lease, self._lease_duration = database, lease, lease_duration
        self._interval = min(PROGRESS_SECONDS, lease_duration.total_seconds() / 4)
        self._reported_at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Record that `done` of `total` parts are complete.

        Raises:
            ExportAborted: The export is no longer leased to this process.
        """
        if time.monotonic() < self._reported_at + self._interval:
            return
        progress = min(99, 100 * done // max(1, total))
        is_leased = leases.renew_despite_outage(
            partial(queue.renew, self._database, self._lease, progress, self._lease_duration),
            f"export {self._lease.export_id}",
        )
        self._reported_at = time.monotonic()
        if not is_leased:
            raise ExportAborted


def _delete_partial_files(storage: Storage, lease: queue.LeasedArchive) -> None:
    """Delete the incomplete archives of processes that died."""
    for file in list(storage.list_files(export_folder(lease.export_id))):
        if file.key != export_key(lease.export_id):
            storage.delete(file.key)
