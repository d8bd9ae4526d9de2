"""Run the imports of the queue: read the file in groups, and write each group in one transaction.

Any number of processes may run this on one database. The transaction of a group also stores the position in
the file, so a process that is killed neither loses nor repeats a row: another one continues after the last
group once the lease has expired. The images of the rows are jobs of their own (`image_worker`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import islice
from uuid import UUID

from db.engine import is_database_unavailable
from db.errors import NotFound
from db.session import Database
from studio import leases
from studio.imports import queue
from studio.imports.archive import ImageArchive
from studio.imports.image_jobs import create_image_jobs
from studio.imports.problems import FindViolations, ImportFileError, build_problem
from studio.imports.rows import Row, read_rows, summarize_file
from studio.imports.writing import write_rows
from studio.media.storage import Storage, data_file_key, is_storage_unavailable, is_storage_working

logger = logging.getLogger(__name__)

LEASE_DURATION = timedelta(seconds=60)
GROUP_ROWS = 500
"""The most rows of one transaction."""
SLICE_SECONDS = 10.0
"""How long one import reads rows before another tenant has its turn, also within a group."""
FILE_MISSING = build_problem(404, "not_found", "The file of the import does not exist any more")


class ImportEnded(Exception):
    """The import was canceled, or another process has taken it over."""


class ImportRunner:
    """Runs imports. One per process.

    Args:
        database: The database of the queue and of the products.
        storage: The storage of the files.
        find_violations: Checks a row with a schema of the contract.
        lease_duration: How long a lease lasts; it is renewed while an import runs.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        find_violations: FindViolations,
        lease_duration: timedelta = LEASE_DURATION,
    ) -> None:
        self._database, self._storage = database, storage
        self._find_violations, self._lease_duration = find_violations, lease_duration

    def run_pending(self, max_seconds: float = float("inf")) -> int:
        """Run imports until none is available or the time is over; return how many were completed.

        Raises:
            OSError: The storage is unreachable or full. The imports stay in the queue.
        """
        completed, ends_at = 0, time.monotonic() + max_seconds
        while time.monotonic() < ends_at and queue.count_available(self._database, 1):
            self._storage.check()
            lease = queue.lease_next(self._database, leases.new_token(), self._lease_duration)
            if lease is not None:
                completed += self._run(lease)
        return completed

    def _run(self, lease: queue.Lease) -> bool:
        """Run a leased import for a while, and return whether this call completed it."""
        name, release = f"import {lease.import_id}", partial(queue.release, self._database, lease)
        renew = partial(queue.renew, self._database, lease, self._lease_duration)
        try:
            with leases.keep(renew, self._lease_duration, name):
                if self._import_rows(lease):
                    return queue.complete_rows(self._database, lease)
            release(counts_attempt=False)
        except ImportEnded:
            pass
        except ImportFileError as error:
            queue.fail(self._database, lease, error.problem)
        except NotFound:
            logger.warning("%s failed: its file is missing", name, exc_info=True)
            queue.fail(self._database, lease, FILE_MISSING)
        except Exception as error:
            if is_database_unavailable(error):
                leases.release_after_outage(release, self._lease_duration, name)
                raise
            if is_storage_unavailable(error):
                release(counts_attempt=is_storage_working(self._storage))
                raise
            logger.exception("%s failed", name)
            release(counts_attempt=True)
        return False

    def _import_rows(self, lease: queue.Lease) -> bool:
        """Import groups of rows, and return whether the end of the file was reached.

        Raises:
            ImportEnded: The import is no longer leased to this process.
            ImportFileError: The file cannot be imported.
            NotFound: The file does not exist.
        """
        path, options, start = self._storage.path(data_file_key(lease.file_id)), lease.options, lease.start
        summary = summarize_file(path, options)
        if start.offset == 0:
            queue.record_total_count(self._database, lease, summary.total_count)
            start = summary.first
        names = None if lease.images_file_id is None else self._list_file_names(lease.images_file_id)
        rows = read_rows(path, options, summary, start, self._find_violations, names)
        ends_at = time.monotonic() + SLICE_SECONDS
        while group := _take_group(rows, ends_at):
            self._import_group(lease, group)
            if time.monotonic() >= ends_at:
                return False
        return True

    def _import_group(self, lease: queue.Lease, rows: list[Row]) -> None:
        with self._database.transaction(write=True):
            row = queue.lock_leased(lease)
            if row is None:
                raise ImportEnded
            results = write_rows(lease, rows, self._find_violations)
            create_image_jobs(row, rows, results)
            queue.record_results(row, results, rows[-1].end, self._lease_duration)

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
