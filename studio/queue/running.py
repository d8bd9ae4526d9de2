"""Run the work of leased rows: heartbeat, time limit, and what each exception means for the row.

`run_leased` is the only place that decides what is permanent, what is retried, and what uses up an attempt:

- An outage of the database or of the storage uses up no attempt.
- An exception that the queue lists as permanent ends the row.
- Every other exception is retried, until the attempts of the row are used up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import ColumnElement
from sqlalchemy.exc import SQLAlchemyError

from db.engine import is_database_unavailable
from db.session import Database
from studio.infrastructure.storage import Storage, is_storage_unavailable, is_storage_working
from studio.queue.row_queue import Interrupted, Leased, LeaseLost, RowQueue

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Record = Callable[[], object]
"""Writes the result of the work, in a transaction. It is called again during an outage of the database."""
Work = Callable[["Heartbeat"], Record | None]
"""The work of a leased row, outside of transactions. Returns None if it has recorded its result itself."""

PROGRESS_SECONDS = 1.0
"""The time between two records of the progress."""
OUTAGE_RETRY_SECONDS = 0.5
"""The time between two attempts to record something during an outage of the database."""
MAX_RUN_SECONDS = 20.0
"""How long `run_pending` leases further rows: periodic tasks share a few threads."""


class AttemptFailed(Exception):
    """The attempt failed for a known reason, and is retried.

    Attributes:
        error: What the queue stores as the reason.
        retry_after: The shortest time until the next attempt.
    """

    def __init__(self, error: Any, retry_after: timedelta | None = None) -> None:
        super().__init__(str(error))
        self.error, self.retry_after = error, retry_after


class TimeLimitExceeded(Exception):
    """The attempt takes too long."""


@dataclass(frozen=True)
class Worker:
    """What a process needs to run queued work. All its threads share one."""

    database: Database
    storage: Storage
    lease_duration: timedelta
    """How long each lease, and each renewal of it, lasts."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """When it is set, no more rows are leased."""
    aborting: threading.Event = field(default_factory=threading.Event)
    """When it is set, work that has started stops, and its row returns to the queue."""

    def abort(self) -> None:
        """Lease no more rows and stop the work that has started; return at once."""
        self.stopping.set()
        self.aborting.set()


class Heartbeat:
    """Renews a lease from a thread while its work runs, and records the progress. A context manager.

    Args:
        worker: The process.
        renew: Extends the lease and records a progress; returns whether the work may go on.
        time_limit: How long the work may take. Afterwards the lease is not renewed.
        description: What is leased, for logs.
    """

    def __init__(
        self,
        worker: Worker,
        renew: Callable[[int | None], bool],
        time_limit: timedelta,
        description: str,
    ) -> None:
        self._worker, self._renew, self._description = worker, renew, description
        self._ends_at = time.monotonic() + time_limit.total_seconds()
        self._progress: int | None = None
        self._is_over, self._must_stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-renewal", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def report(self, done: int, total: int) -> None:
        """Record the progress with the next renewal.

        Raises:
            Interrupted, TimeLimitExceeded: As `check`.
        """
        self._progress = min(99, 100 * done // max(1, total))
        self.check()

    def check(self) -> None:
        """Return if the work may go on.

        Raises:
            Interrupted: The row was canceled, is no longer leased, or the process ends.
            TimeLimitExceeded: The work takes too long.
        """
        if self._must_stop.is_set() or self._worker.aborting.is_set():
            raise Interrupted
        if time.monotonic() > self._ends_at:
            raise TimeLimitExceeded

    def _run(self) -> None:
        duration = self._worker.lease_duration.total_seconds()
        renewed_at, recorded = time.monotonic(), self._progress
        while not self._is_over.wait(min(PROGRESS_SECONDS, duration / 4)):
            now, progress = time.monotonic(), self._progress
            if now > self._ends_at:
                logger.warning("%s takes too long", self._description)
                return
            if progress == recorded and now < renewed_at + duration / 3:
                continue
            try:
                if not self._renew(progress):
                    self._must_stop.set()
            except SQLAlchemyError:
                # An outage does not undo the work. The token decides when the result is recorded.
                logger.warning("the lease of %s was not renewed", self._description, exc_info=True)
            renewed_at, recorded = now, progress


def run_pending(
    worker: Worker,
    queue: RowQueue[Any, Leased],
    run: Callable[[Leased], bool],
    max_seconds: float = MAX_RUN_SECONDS,
) -> int:
    """Lease rows and run them, until none is available or the time is over; return how many were completed.

    Args:
        worker: The process.
        queue: The queue.
        run: Runs a leased row; returns whether it is completed.
        max_seconds: How long further rows are leased. A row that was leased before may take longer.

    Raises:
        OSError: The storage is unreachable or full. The rows stay in the queue.
        SQLAlchemyError: The database is unreachable.
    """
    completed, ends_at = 0, time.monotonic() + max_seconds
    while time.monotonic() < ends_at and (lease := lease_next(worker, queue)) is not None:
        completed += run(lease)
    return completed


def lease_next(
    worker: Worker,
    queue: RowQueue[Any, Leased],
    choose: Callable[[], Any] | None = None,
    available: ColumnElement[bool] | None = None,
) -> Leased | None:
    """Lease the next row of a queue; return None if there is none, or if the process ends.

    Args:
        worker: The process.
        queue: The queue.
        choose: Replaces `choose` of the queue.
        available: The condition of rows that `choose` can return, if it is not that of the queue.

    Raises:
        OSError: The storage is unreachable or full, and the work needs it.
    """
    if worker.stopping.is_set() or not queue.count_available(worker.database, 1, available):
        return None
    if queue.writes_files:
        worker.storage.check()
    return queue.lease_next(worker.database, worker.lease_duration, choose)


def run_leased(worker: Worker, queue: RowQueue[Any, Leased], lease: Leased, work: Work) -> bool:
    """Run the work of a leased row and record its result; return whether a result was recorded.

    The lease is renewed until the result is recorded. During an outage of the database the result is recorded
    again and again, for as long as a lease lasts; then another worker takes the row over.

    Raises:
        OSError: The storage is unreachable or full. The row is back in its queue.
        SQLAlchemyError: The database is unreachable. The row is back in its queue, or leased if the outage
            lasts.
    """
    name = f"{queue.name} {lease.row_id}"
    renew = partial(queue.renew, worker.database, lease, worker.lease_duration)
    release = partial(queue.release, worker.database, lease)
    try:
        with Heartbeat(worker, renew, queue.time_limit, name) as heartbeat:
            record = work(heartbeat)
            if record is None:
                return False
            record_leased(worker, record, f"the result of {name}")
            return True
    except Interrupted as error:
        if isinstance(error, LeaseLost):
            logger.info("%s was deleted, has ended or belongs to another worker", name)
        # No longer leased, unless the process ends, the row was canceled or other tenants have their turn.
        retry_in_outage(worker, partial(release, counts_attempt=False), f"the release of {name}")
    except AttemptFailed as error:
        logger.warning("%s failed: %s", name, error)
        end = partial(release, counts_attempt=True, error=error.error, retry_after=error.retry_after)
        retry_in_outage(worker, end, f"the failure of {name}")
    except tuple(queue.permanent) as error:
        # The text of the error may quote a file of the tenant, and the row keeps it.
        logger.warning("%s failed for good: %s", name, type(error).__name__)
        describe = next(queue.permanent[kind] for kind in type(error).__mro__ if kind in queue.permanent)
        end = partial(queue.fail, worker.database, lease, describe(error))
        retry_in_outage(worker, end, f"the failure of {name}")
    except Exception as error:
        if is_database_unavailable(error):
            _release_in_outage(worker, partial(release, counts_attempt=False), name)
            raise
        if is_storage_unavailable(error):
            # If the storage works, the cause can be this row: a file that does not fit, or a broken one.
            counts_attempt = is_storage_working(worker.storage)
            retry_in_outage(worker, partial(release, counts_attempt=counts_attempt), f"the release of {name}")
            raise
        # A row that was deleted meanwhile takes its files with it.
        if retry_in_outage(worker, partial(release, counts_attempt=True), f"the failure of {name}"):
            logger.exception("%s failed", name)
    return False


def record_leased(worker: Worker, record: Record, description: str) -> None:
    """Call `record` in a transaction, and again during an outage of the database (see `retry_in_outage`).

    Raises:
        LeaseLost: The row no longer belongs to the lease.
    """

    def write() -> None:
        with worker.database.transaction(write=True):
            record()

    retry_in_outage(worker, write, description)


def retry_in_outage(worker: Worker, write: Callable[[], Result], description: str) -> Result:
    """Call `write`, and call it again during an outage of the database, for as long as a lease lasts.

    Repeated writes are harmless: they require the token of the lease.

    Args:
        worker: The process. It ends the retries when it aborts.
        write: Records something about a leased row.
        description: What is recorded, for the log.
    """
    ends_at = time.monotonic() + worker.lease_duration.total_seconds()
    while True:
        try:
            return write()
        except Exception as error:
            is_over = time.monotonic() > ends_at or worker.aborting.is_set()
            if not is_database_unavailable(error) or is_over:
                raise
            logger.warning("%s was not recorded, retrying", description, exc_info=True)
            worker.aborting.wait(OUTAGE_RETRY_SECONDS)


def _release_in_outage(worker: Worker, release: Callable[[], object], name: str) -> None:
    try:
        retry_in_outage(worker, release, f"the release of {name}")
    except Exception as error:
        if not is_database_unavailable(error):
            raise
        logger.warning("%s is released when its lease has expired", name, exc_info=True)
