"""Carries exports out: one after the other, outside of transactions, the lease renewed meanwhile.

Any number of processes may do so on one database. A process that dies loses nothing: the next one writes the
same archive again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import time
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from db.session import Database
from studio.exports import queue
from studio.exports.archive import CHUNK_BYTES, SourceFileMissing, write_archive
from studio.media.storage import Storage, export_folder, export_key

logger = logging.getLogger(__name__)

LEASE_DURATION = timedelta(seconds=60)
PROGRESS_SECONDS = 1.0


class ExportAborted(Exception):
    """The archive is no longer wanted from this process: the export was deleted, or taken over."""


def run_pending_exports(
    database: Database, storage: Storage, lease_duration: timedelta = LEASE_DURATION
) -> int:
    """Carry out every export that waits; how many were completed."""
    completed = 0
    while queue.has_available(database):
        token = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(8)}"
        claim = queue.lease_next(database, token, lease_duration)
        if claim is not None:
            completed += run_export(database, storage, claim, lease_duration)
    return completed


def run_export(database: Database, storage: Storage, lease: queue.Lease, lease_duration: timedelta) -> bool:
    """Write the archive of a claimed export and record it; whether it was completed by this."""
    try:
        file_size, content_hash = _write_file(database, storage, lease, lease_duration)
        if queue.try_complete(database, lease, file_size, content_hash):
            _delete_partial_files(storage, lease)
            return True
    except ExportAborted:
        pass
    except SourceFileMissing:
        logger.warning("export %s has lost a picture", lease.export_id, exc_info=True)
        queue.fail(database, lease, queue.INPUT_ERROR)
    except Exception:
        # Whoever deletes an export takes the folder away from under its writer.
        if queue.export_exists(database, lease.export_id):
            logger.exception("export %s failed", lease.export_id)
            queue.fail(database, lease, queue.INTERNAL_ERROR)
    if not queue.export_exists(database, lease.export_id):
        storage.delete_folder(export_folder(lease.export_id))
    return False


def _write_file(
    database: Database, storage: Storage, lease: queue.Lease, lease_duration: timedelta
) -> tuple[int, str]:
    """Size and SHA-256 of the archive, which is whole and in its place."""
    heartbeat = _Heartbeat(database, lease, lease_duration)
    with storage.open_writer(export_key(lease.export_id)) as file:
        write_archive(file, storage, lease.shooting, lease.entries, heartbeat)
        # Read again: zipfile goes back to fill sizes in.
        file.seek(0)
        digest = hashlib.sha256()
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
            heartbeat(len(lease.entries))
        return file.tell(), digest.hexdigest()


class _Heartbeat:
    """Tells the progress and keeps the lease, at most once a second."""

    def __init__(self, database: Database, lease: queue.Lease, lease_duration: timedelta) -> None:
        self._database, self._lease, self._lease_duration = database, lease, lease_duration
        self._interval = min(PROGRESS_SECONDS, lease_duration.total_seconds() / 4)
        self._reported_at = time.monotonic()

    def __call__(self, done: int) -> None:
        """Say how many pictures are whole; Abandoned when the export is no longer ours."""
        if time.monotonic() < self._reported_at + self._interval:
            return
        progress = min(99, 100 * done // len(self._lease.entries))
        try:
            ours = queue.renew(self._database, self._lease, progress, self._lease_duration)
        except SQLAlchemyError:
            # A database that is away for a moment does not undo the work; the token decides in the end.
            logger.warning("the lease of export %s was not renewed", self._lease.export_id, exc_info=True)
            ours = True
        self._reported_at = time.monotonic()
        if not ours:
            raise ExportAborted


def _delete_partial_files(storage: Storage, lease: queue.Lease) -> None:
    """Remove what processes that died have left half written."""
    for file in list(storage.list_files(export_folder(lease.export_id))):
        if file.key != export_key(lease.export_id):
            storage.delete(file.key)
