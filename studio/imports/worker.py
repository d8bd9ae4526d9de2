"""Run the imports of the queue: read the file in groups, and write each group in one transaction.

Any number of processes may run this on one database. The transaction of a group also stores the position in
the file, so a process that is killed neither loses nor repeats a row: another one continues after the last
group once the lease has expired. The images of the rows are jobs of their own (`image_worker`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from uuid import UUID

from studio.imports.archive import ImageArchive
from studio.imports.create import require_rights
from studio.imports.image_jobs import create_image_jobs
from studio.imports.problems import FindViolations
from studio.imports.queue import IMPORTS, ImportLease, complete_rows, record_results, record_total_count
from studio.imports.rows import Row, read_rows, summarize_file
from studio.imports.writing import write_rows
from studio.infrastructure.storage import data_file_key
from studio.queue.row_queue import Interrupted
from studio.queue.running import MAX_RUN_SECONDS, Heartbeat, Worker, run_leased, run_pending

GROUP_ROWS = 500
"""The most rows of one transaction."""
SLICE_SECONDS = 10.0
"""How long one import reads rows before another tenant has its turn, also within a group."""


class ImportRunner:
    """Runs imports. One per process.

    Args:
        worker: The process.
        find_violations: Checks a row with a schema of the contract.
    """

    def __init__(self, worker: Worker, find_violations: FindViolations) -> None:
        self._worker, self._find_violations = worker, find_violations
        self._storage = worker.storage

    def run_pending(self, max_seconds: float = MAX_RUN_SECONDS) -> int:
        """Run imports until none is available or the time is over; return how many have no rows left.

        Raises:
            OSError: The storage is unreachable or full. The imports stay in the queue.
        """
        return run_pending(self._worker, IMPORTS, self._run, max_seconds)

    def _run(self, lease: ImportLease) -> bool:
        def work(heartbeat: Heartbeat) -> Callable[[], None]:
            self._import_rows(lease, heartbeat)
            return partial(complete_rows, lease)

        return run_leased(self._worker, IMPORTS, lease, work)

    def _import_rows(self, lease: ImportLease, heartbeat: Heartbeat) -> None:
        """Import groups of rows, up to the end of the file.

        Raises:
            Interrupted: The time is over, or the import is no longer leased to this process.
            ImportFileError: The file cannot be imported.
            NotFound: The file does not exist.
        """
        path, options, start = self._storage.path(data_file_key(lease.file_id)), lease.options, lease.start
        summary = summarize_file(path, options)
        if start.offset == 0:
            record_total_count(self._worker.database, lease, summary.total_count)
            start = summary.first
        names = None if lease.images_file_id is None else self._list_file_names(lease.images_file_id)
        rows = read_rows(path, options, summary, start, self._find_violations, names)
        ends_at = time.monotonic() + SLICE_SECONDS
        while group := _take_group(rows, ends_at):
            self._import_group(lease, group)
            heartbeat.check()
            if time.monotonic() >= ends_at:
                raise Interrupted

    def _import_group(self, lease: ImportLease, rows: list[Row]) -> None:
        with self._worker.database.transaction(write=True):
            row = IMPORTS.lock(lease)
            require_rights(row)
            results = write_rows(lease, rows, self._find_violations)
            create_image_jobs(row, rows, results)
            record_results(row, results, rows[-1].end, self._worker.lease_duration)

    def _list_file_names(self, file_id: UUID) -> frozenset[str]:
        """Return the names of the images in a ZIP file."""
        with closing(ImageArchive(self._storage.path(data_file_key(file_id)))) as archive:
            return archive.names


def _take_group(rows: Iterator[Row], ends_at: float) -> list[Row]:
    """Return the next rows of a file, none at its end: at least one, also if the time is over.

    A row is validated when it is read, which can take 20 ms.
    """
    group: list[Row] = []
    for row in islice(rows, GROUP_ROWS):
        group.append(row)
        if time.monotonic() >= ends_at:
            break
    return group
