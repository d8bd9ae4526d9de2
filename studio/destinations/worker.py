"""Deliver the files of completed exports to their destinations, outside of transactions.

A file is sent from the archive, in chunks, and recorded when the server has accepted it. If a process dies in
between, another one sends the same file to the same key again. Any number of processes may run this on one
database.
"""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial

from db.engine import is_database_unavailable
from db.errors import NotFound
from db.session import Database
from studio import leases
from studio.destinations import queue
from studio.destinations.credentials import CredentialsUnreadable
from studio.destinations.targets import File, Outcome, PutFile, Target, put_file
from studio.http_client import SafeHttpClient
from studio.media.storage import Storage, export_key, is_storage_unavailable
from studio.settings import Settings

logger = logging.getLogger(__name__)

MAX_RUN_SECONDS = 20.0
"""After this time a run leases no further delivery, so that other periodic tasks get its thread."""
SHARE_SECONDS = 10.0
"""After this time a delivery waits until other tenants had their turn."""
CHUNK_BYTES = 65_536
MANIFESTS = ("manifest.csv", "manifest.json")
"""They are delivered last, in this order: a receiver that sees the last one has all files."""
CONTENT_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "jpg": "image/jpeg",
    "json": "application/json",
    "png": "image/png",
    "webp": "image/webp",
}


class DeliveryLost(Exception):
    """The export was deleted, or another process has taken its delivery over."""


def run_pending_deliveries(
    settings: Settings,
    database: Database,
    storage: Storage,
    http_client: SafeHttpClient,
    put: PutFile | None = None,
    max_seconds: float = MAX_RUN_SECONDS,
) -> int:
    """Deliver what is due, and return how many exports were delivered completely.

    Args:
        settings: The settings of the process.
        database: The database.
        storage: Where the archives are.
        http_client: The client that sends files.
        put: Replaces `targets.put_file`, for a mock.
        max_seconds: How long the run takes, besides the file that is being sent then.

    Raises:
        OSError: The storage is unreachable. The delivery waits for its next attempt.
    """
    completed, ends_at = 0, time.monotonic() + max_seconds
    lease_duration = timedelta(seconds=settings.lease_seconds)
    while time.monotonic() < ends_at and queue.count_available(database, 1):
        lease = queue.lease_next(database, leases.new_token(), lease_duration)
        if lease is not None:
            put_one = put or partial(put_file, http_client)
            completed += _run_leased(settings, database, storage, lease, lease_duration, put_one)
    return completed


def _run_leased(
    settings: Settings,
    database: Database,
    storage: Storage,
    lease: queue.Lease,
    lease_duration: timedelta,
    put: PutFile,
) -> bool:
    """Keep the lease while `_run` delivers; return the delivery to the queue if the database fails."""
    name = f"the delivery of export {lease.export_id}"
    renew = partial(queue.renew, database, lease, lease_duration)
    try:
        with leases.keep(renew, lease_duration, name):
            return _run(settings, database, storage, lease, put)
    except Exception as error:
        if is_database_unavailable(error):
            leases.release_after_outage(partial(queue.release, database, lease), lease_duration, name)
        raise


def _run(settings: Settings, database: Database, storage: Storage, lease: queue.Lease, put: PutFile) -> bool:
    """Deliver files of a leased export; return whether this call delivered the last one."""
    try:
        target = lease.target.decrypt(settings)
        with zipfile.ZipFile(storage.path(export_key(lease.export_id))) as archive:
            return _deliver(database, lease, archive, target, put)
    except DeliveryLost:
        return False
    except CredentialsUnreadable:
        logger.error("credentials of destination %s cannot be decrypted", lease.target.destination_id)
        queue.record_failure(database, lease, None, Outcome(error="credentials_unreadable"))
    except (NotFound, FileNotFoundError, zipfile.BadZipFile):
        logger.exception("the archive of export %s cannot be delivered", lease.export_id)
        queue.record_failure(database, lease, None, Outcome(error="archive_missing"))
    except OSError as error:
        if is_storage_unavailable(error):
            queue.release(database, lease)
        raise
    return False


def _deliver(
    database: Database, lease: queue.Lease, archive: zipfile.ZipFile, target: Target, put: PutFile
) -> bool:
    ends_at = time.monotonic() + SHARE_SECONDS
    entries = {info.filename: info for info in _order(archive.infolist())}
    sizes = [(name, info.file_size) for name, info in entries.items()]
    pending = queue.list_pending(database, lease, sizes)
    if pending is None:
        raise DeliveryLost
    for file in pending:
        if time.monotonic() >= ends_at:
            queue.release(database, lease)
            return False
        outcome = put(target, f"{lease.export_id}/{file.file_name}", _open(archive, entries[file.file_name]))
        if outcome.error is not None:
            logger.warning(
                "delivery of export %s failed: %s, HTTP %s",
                lease.export_id,
                outcome.error,
                outcome.status_code,
            )
            queue.record_failure(database, lease, file, outcome)
            return False
        if not queue.record_delivered(database, lease, file, outcome):
            raise DeliveryLost
    return queue.complete(database, lease)


def _order(entries: Sequence[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """Return the files of an archive in the order of their delivery."""
    return sorted(entries, key=lambda entry: (entry.filename in MANIFESTS, entry.filename == MANIFESTS[-1]))


def _open(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> File:
    def open_chunks() -> Iterator[bytes]:
        with archive.open(entry) as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk

    extension = entry.filename.rpartition(".")[2]
    content_type = CONTENT_TYPES.get(extension, "application/octet-stream")
    return File(entry.filename, entry.file_size, content_type, open_chunks)
