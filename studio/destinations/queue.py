"""The queue of deliveries: what is special about its rows, and what happened to their files.

The row is the export, with the lease columns that the creation of its archive used before. Knows nothing of
how a file is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, or_, select, update

from db.base import utc_now
from db.models.destinations import DeliveryState, Destination, ExportDelivery
from db.models.exports import Export, ExportStatus
from db.session import Database, current_session
from studio.destinations.changes import EncryptedTarget
from studio.destinations.targets import Outcome
from studio.queue.retries import FILE_DELIVERIES
from studio.queue.row_queue import PENDING, Lease, RowQueue

INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class DeliveryLease(Lease):
    """A leased delivery."""

    target: EncryptedTarget


@dataclass(frozen=True)
class PendingFile:
    """A file that is not delivered yet."""

    delivery_id: UUID
    file_name: str


@dataclass(frozen=True)
class Failure:
    """A failed attempt, of one file if it is known."""

    outcome: Outcome
    file: PendingFile | None = None

    def __str__(self) -> str:
        return f"{self.outcome.error}, HTTP {self.outcome.status_code}"


def list_pending(
    database: Database, lease: DeliveryLease, files: Iterable[tuple[str, int]]
) -> list[PendingFile]:
    """Return the files to deliver, in order.

    Args:
        database: The database of the queue.
        lease: The lease.
        files: All files with their sizes, in the order of the delivery. They are stored at the first attempt.

    Raises:
        LeaseLost: The export was deleted or belongs to another worker.
    """
    with database.transaction(write=True) as session:
        DELIVERIES.lock(lease)
        # unscoped: the log of the leased export
        log = select(ExportDelivery).where(ExportDelivery.export_id == lease.row_id)
        rows = list(session.scalars(log.order_by(ExportDelivery.id)))
        if not rows:
            rows = [ExportDelivery(export_id=lease.row_id, file_name=n, file_size=s) for n, s in files]
            for row in rows:
                session.add(row)
            session.flush()
        return [PendingFile(row.id, row.file_name) for row in rows if row.status == DeliveryState.PENDING]


def record_delivered(lease: DeliveryLease, file: PendingFile, outcome: Outcome) -> None:
    """Record that a file was delivered.

    Raises:
        LeaseLost: As `list_pending`.
    """
    export = DELIVERIES.lock(lease)
    # unscoped: a file of the leased export
    row = current_session().get_one(ExportDelivery, file.delivery_id)
    row.status, row.delivered_at = DeliveryState.DELIVERED, utc_now()
    row.attempts, row.last_status_code, row.last_error = row.attempts + 1, outcome.status_code, None
    if export.delivery_attempts:
        export.delivery_attempts, export.delivery_error = 0, None


def complete_delivery(lease: DeliveryLease) -> None:
    """Record that all files were delivered.

    Raises:
        LeaseLost: As `list_pending`.
    """
    _end(DELIVERIES.lock(lease), DeliveryState.DELIVERED, None)


def _is_due() -> ColumnElement[bool]:
    is_due = or_(
        Export.delivery_status == DeliveryState.RUNNING, Export.delivery_next_attempt_at <= utc_now()
    )
    return and_(Export.status == ExportStatus.COMPLETED, is_due)


def _start(export: Export) -> None:
    if export.lease_owner is not None:
        export.delivery_error = INTERRUPTED
    export.delivery_status, export.delivery_next_attempt_at = DeliveryState.RUNNING, None


def _take(export: Export, token: str) -> DeliveryLease:
    # unscoped: the destination of the leased export
    query = select(Destination).where(Destination.id == export.destination_id)
    destination = current_session().scalars(query).one()
    return DeliveryLease(row_id=export.id, token=token, target=EncryptedTarget.of(destination))


def _requeue(export: Export, available_at: datetime | None, failure: Failure | None) -> None:
    # Not `lease_expires_at`: clients see the time, and a change of the destination moves it.
    export.lease_expires_at = None
    export.delivery_status, export.delivery_next_attempt_at = PENDING, available_at or utc_now()
    if available_at is not None:
        export.delivery_error = _record_failure(failure)


def _fail(export: Export, failure: Failure | None) -> None:
    _end(export, DeliveryState.FAILED, _record_failure(failure))


def _record_failure(failure: Failure | None) -> str | None:
    """Record a failed attempt of a file, and return the error of the delivery."""
    if failure is None:
        return INTERRUPTED
    if failure.file is not None:
        # unscoped: a file of the leased export
        row = current_session().get_one(ExportDelivery, failure.file.delivery_id)
        row.attempts += 1
        row.last_status_code, row.last_error = failure.outcome.status_code, failure.outcome.error
    return failure.outcome.error


def _end(export: Export, state: DeliveryState, error: str | None) -> None:
    export.delivery_status, export.delivery_error = state, error
    export.delivery_next_attempt_at, export.delivery_ended_at = None, utc_now()
    export.lease_owner = export.lease_expires_at = None
    if state == DeliveryState.FAILED:
        # unscoped: the log of the locked export
        remaining = update(ExportDelivery).where(
            ExportDelivery.export_id == export.id, ExportDelivery.status == DeliveryState.PENDING
        )
        current_session().execute(
            remaining.values(status=DeliveryState.FAILED).execution_options(synchronize_session=False)
        )


DELIVERIES = RowQueue(
    name="the delivery of export",
    model=Export,
    take=_take,
    end_failed=_fail,
    order=lambda: (Export.delivery_next_attempt_at.asc(), Export.id.asc()),
    condition=_is_due,
    start=_start,
    requeue=_requeue,
    retries=FILE_DELIVERIES,
    status="delivery_status",
    attempts="delivery_attempts",
    counts_failures_only=True,
    writes_files=False,
)
