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
from studio.exports.archive import PIECE_BYTES, PictureLost, write_archive
from studio.media.storage import Storage, export_folder, export_key

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
TELL_SECONDS = 1.0


class Abandoned(Exception):
    """The archive is no longer wanted from this process: the export was deleted, or taken over."""


def work_off_exports(database: Database, storage: Storage, lease: timedelta = LEASE) -> int:
    """Carry out every export that waits; how many were completed."""
    completed = 0
    while queue.has_work(database):
        token = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(8)}"
        claim = queue.claim_next(database, token, lease)
        if claim is not None:
            completed += carry_out(database, storage, claim, lease)
    return completed


def carry_out(database: Database, storage: Storage, claim: queue.Claim, lease: timedelta) -> bool:
    """Write the archive of a claimed export and record it; whether it was completed by this."""
    try:
        file_size, content_hash = _write(database, storage, claim, lease)
        if queue.finish(database, claim, file_size, content_hash):
            _remove_leftovers(storage, claim)
            return True
    except Abandoned:
        pass
    except PictureLost:
        logger.warning("export %s has lost a picture", claim.export_id, exc_info=True)
        queue.fail(database, claim, queue.INPUT_ERROR)
    except Exception:
        # Whoever deletes an export takes the folder away from under its writer.
        if queue.is_there(database, claim.export_id):
            logger.exception("export %s failed", claim.export_id)
            queue.fail(database, claim, queue.INTERNAL_ERROR)
    if not queue.is_there(database, claim.export_id):
        storage.delete_folder(export_folder(claim.export_id))
    return False


def _write(database: Database, storage: Storage, claim: queue.Claim, lease: timedelta) -> tuple[int, str]:
    """Size and SHA-256 of the archive, which is whole and in its place."""
    heartbeat = _Heartbeat(database, claim, lease)
    with storage.writing(export_key(claim.export_id)) as file:
        write_archive(file, storage, claim.shooting, claim.pictures, heartbeat)
        # Read again: zipfile goes back to fill sizes in.
        file.seek(0)
        digest = hashlib.sha256()
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            heartbeat(len(claim.pictures))
        return file.tell(), digest.hexdigest()


class _Heartbeat:
    """Tells the progress and keeps the lease, at most once a second."""

    def __init__(self, database: Database, claim: queue.Claim, lease: timedelta) -> None:
        self._database, self._claim, self._lease = database, claim, lease
        self._pause = min(TELL_SECONDS, lease.total_seconds() / 4)
        self._told_at = time.monotonic()

    def __call__(self, done: int) -> None:
        """Say how many pictures are whole; Abandoned when the export is no longer ours."""
        if time.monotonic() < self._told_at + self._pause:
            return
        progress = min(99, 100 * done // len(self._claim.pictures))
        try:
            ours = queue.renew(self._database, self._claim, progress, self._lease)
        except SQLAlchemyError:
            # A database that is away for a moment does not undo the work; the token decides in the end.
            logger.warning("the lease of export %s was not renewed", self._claim.export_id, exc_info=True)
            ours = True
        self._told_at = time.monotonic()
        if not ours:
            raise Abandoned


def _remove_leftovers(storage: Storage, claim: queue.Claim) -> None:
    """Remove what processes that died have left half written."""
    for file in list(storage.files(export_folder(claim.export_id))):
        if file.key != export_key(claim.export_id):
            storage.delete(file.key)
