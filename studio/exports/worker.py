"""Write the archives of exports and account exports, outside of transactions.

Any number of processes may run this on one database. If a process dies, another one writes the same archive
again once the lease has expired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from studio.exports.archive import CHUNK_BYTES, write_archive
from studio.exports.content_credentials import SignFile
from studio.exports.queue import EXPORTS, ExportLease, complete_export, export_exists
from studio.infrastructure.storage import Storage, export_folder, export_key
from studio.queue.row_queue import Leased, RowQueue
from studio.queue.running import MAX_RUN_SECONDS, Heartbeat, Worker, run_leased, run_pending


def run_pending_exports(
    worker: Worker, sign_file: SignFile | None = None, max_seconds: float = MAX_RUN_SECONDS
) -> int:
    """Write the archives of pending exports; return how many were completed. `sign_file` signs each image.

    Raises:
        OSError: The storage is unreachable or full. The exports stay pending.
    """
    return run_pending(worker, EXPORTS, lambda lease: run_export(worker, lease, sign_file), max_seconds)


def run_export(worker: Worker, lease: ExportLease, sign_file: SignFile | None = None) -> bool:
    """Write the archive of a leased export; return whether this call completed it."""

    def write(file: BinaryIO, heartbeat: Heartbeat) -> None:
        report_progress = partial(heartbeat.report, total=len(lease.entries))
        write_archive(file, worker.storage, lease.shooting, lease.entries, report_progress, sign_file)

    return write_leased(worker, EXPORTS, lease, write, complete_export)


def write_leased(
    worker: Worker,
    queue: RowQueue[Any, Leased],
    lease: Leased,
    write: Callable[[BinaryIO, Heartbeat], None],
    complete: Callable[[Leased, int, str], None],
) -> bool:
    """Write the archive of a leased row and record it; return whether this call completed it.

    Args:
        worker: The process.
        queue: The queue of the row.
        lease: The lease.
        write: Writes the archive to a seekable file, and checks the heartbeat meanwhile.
        complete: Records the size and the SHA-256 of the archive.

    Raises:
        OSError: The storage is unreachable or full; the row is pending again.
        SQLAlchemyError: The database is unreachable; the row is pending again, or leased if the outage lasts.
    """
    storage, export_id = worker.storage, lease.row_id

    def work(heartbeat: Heartbeat) -> Callable[[], None]:
        with storage.open_writer(export_key(export_id)) as file:
            write(file, heartbeat)
            # The hash needs a second pass: zipfile seeks back to fill in sizes.
            file.seek(0)
            digest = hashlib.sha256()
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                heartbeat.check()
            return partial(complete, lease, file.tell(), digest.hexdigest())

    is_completed = run_leased(worker, queue, lease, work)
    if is_completed:
        _delete_partial_files(storage, lease)
    elif not export_exists(worker.database, queue.model, export_id):
        # The deletion of an export removes the folder that the archive was being written to.
        storage.delete_folder(export_folder(export_id))
    return is_completed


def _delete_partial_files(storage: Storage, lease: Leased) -> None:
    """Delete the incomplete archives of processes that died."""
    for file in list(storage.list_files(export_folder(lease.row_id))):
        if file.key != export_key(lease.row_id):
            storage.delete(file.key)
