"""Deliver the files of completed exports to their destinations, outside of transactions.

A file is sent from the archive, in chunks, and recorded when the server has accepted it. If a process dies in
between, another one sends the same file to the same key again. Any number of processes may run this on one
database.
"""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from db.errors import NotFound
from studio.destinations.queue import (
    DELIVERIES,
    DeliveryLease,
    Failure,
    complete_delivery,
    list_pending,
    record_delivered,
)
from studio.destinations.targets import File, Outcome, PutFile, Target, put_file
from studio.infrastructure.encryption import SecretUnreadable
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import export_key
from studio.queue.row_queue import Interrupted
from studio.queue.running import (
    MAX_RUN_SECONDS,
    AttemptFailed,
    Heartbeat,
    Worker,
    record_leased,
    run_leased,
    run_pending,
)

logger = logging.getLogger(__name__)

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


def run_pending_deliveries(
    settings: Settings,
    worker: Worker,
    http_client: SafeHttpClient,
    put: PutFile | None = None,
    max_seconds: float = MAX_RUN_SECONDS,
) -> int:
    """Deliver what is due, and return how many exports were delivered completely.

    Args:
        settings: The settings of the process.
        worker: The process.
        http_client: The client that sends files.
        put: Replaces `targets.put_file`, for a mock.
        max_seconds: How long the run takes, besides the file that is being sent then.

    Raises:
        OSError: The storage is unreachable. The delivery waits for its next attempt.
    """

    def run(lease: DeliveryLease) -> bool:
        def work(heartbeat: Heartbeat) -> Callable[[], None]:
            _deliver(
                worker, lease, _open_target(settings, lease), put or partial(put_file, http_client), heartbeat
            )
            return partial(complete_delivery, lease)

        return run_leased(worker, DELIVERIES, lease, work)

    return run_pending(worker, DELIVERIES, run, max_seconds)


def _open_target(settings: Settings, lease: DeliveryLease) -> Target:
    try:
        return lease.target.decrypt(settings)
    except SecretUnreadable as error:
        logger.error("credentials of destination %s cannot be decrypted", lease.target.destination_id)
        raise AttemptFailed(Failure(Outcome(error="credentials_unreadable"))) from error


def _deliver(
    worker: Worker, lease: DeliveryLease, target: Target, put: PutFile, heartbeat: Heartbeat
) -> None:
    """Deliver the files of a leased export that are not delivered yet.

    Raises:
        AttemptFailed: The archive is missing, or the server did not accept a file.
        Interrupted: The delivery was canceled, or other tenants have their turn.
    """
    ends_at = time.monotonic() + SHARE_SECONDS
    try:
        with zipfile.ZipFile(worker.storage.path(export_key(lease.row_id))) as archive:
            entries = {info.filename: info for info in _order(archive.infolist())}
            sizes = [(name, info.file_size) for name, info in entries.items()]
            for file in list_pending(worker.database, lease, sizes):
                heartbeat.check()
                if time.monotonic() >= ends_at:
                    raise Interrupted
                key = f"{lease.row_id}/{file.file_name}"
                outcome = put(target, key, _open(archive, entries[file.file_name]))
                if outcome.error is not None:
                    raise AttemptFailed(Failure(outcome, file), outcome.retry_after)
                record_leased(worker, partial(record_delivered, lease, file, outcome), key)
    except (NotFound, FileNotFoundError, zipfile.BadZipFile) as error:
        raise AttemptFailed(Failure(Outcome(error="archive_missing"))) from error


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
