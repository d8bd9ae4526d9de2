"""The queue of deliveries: lease the next export with a destination, and record what happened to its files.

The row of the export is the queue, with the lease columns that the creation of its archive used before (see
`studio.leases`). Tenants take turns. Knows nothing of how a file is sent.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, or_, select, update

from db.base import utc_now
from db.models.destinations import DeliveryState, Destination, ExportDelivery
from db.models.exports import Export, ExportStatus
from db.session import Database, current_session
from studio import leases
from studio.destinations.changes import EncryptedTarget
from studio.destinations.targets import Outcome

RETRY_DELAYS = tuple(timedelta(seconds=seconds) for seconds in (10, 60, 300, 1_800, 7_200, 21_600, 43_200))
"""The backoff after each failed attempt. The delivery fails after the last one, about 21 hours later."""
JITTER = 0.1


@dataclass(frozen=True)
class Lease:
    """A delivery that one worker has leased, as plain values: no transaction stays open for it."""

    export_id: UUID
    token: str
    target: EncryptedTarget


@dataclass(frozen=True)
class PendingFile:
    """A file that is not delivered yet."""

    delivery_id: UUID
    file_name: str


def count_available(database: Database, limit: int) -> int:
    """Return how many deliveries can be leased now, counted up to `limit`."""
    # unscoped: workers deliver the exports of every tenant
    return leases.count_available(database, select(Export.id).where(_available()), limit)


def lease_next(database: Database, token: str, lease_duration: timedelta) -> Lease | None:
    """Lease the next delivery to `token`, or return None if there is none.

    The delivery of a worker that died counts as a failed attempt.
    """
    with database.transaction(write=True) as session:
        export = leases.lock_next(_select_next(), Export)
        if export is None:
            return None
        export.leased_at = utc_now()
        if export.delivery_status == DeliveryState.RUNNING:
            _record_attempt(export, Outcome(error="interrupted"), is_due=True)
            if export.delivery_status == DeliveryState.FAILED:
                return None
        # unscoped: the destination of the leased export
        destination = session.scalars(
            select(Destination).where(Destination.id == export.destination_id)
        ).one()
        export.delivery_status, export.delivery_next_attempt_at = DeliveryState.RUNNING, None
        leases.acquire(export, token, lease_duration)
        return Lease(export.id, token, EncryptedTarget.of(destination))


def renew(database: Database, lease: Lease, lease_duration: timedelta) -> bool:
    """Extend the lease; return whether the delivery is still leased."""
    return leases.renew(database, Export, owned_by(lease), lease_duration)


def list_pending(
    database: Database, lease: Lease, files: Iterable[tuple[str, int]]
) -> list[PendingFile] | None:
    """Return the files to deliver, in order, or None if the delivery is no longer leased.

    Args:
        database: The database of the queue.
        lease: The lease.
        files: All files with their sizes, in the order of the delivery. They are stored at the first attempt.
    """
    with database.transaction(write=True) as session:
        if leases.lock_leased(Export, owned_by(lease)) is None:
            return None
        # unscoped: the log of the leased export
        log = select(ExportDelivery).where(ExportDelivery.export_id == lease.export_id)
        rows = list(session.scalars(log.order_by(ExportDelivery.id)))
        if not rows:
            rows = [ExportDelivery(export_id=lease.export_id, file_name=n, file_size=s) for n, s in files]
            for row in rows:
                session.add(row)
            session.flush()
        return [PendingFile(row.id, row.file_name) for row in rows if row.status == DeliveryState.PENDING]


def record_delivered(database: Database, lease: Lease, file: PendingFile, outcome: Outcome) -> bool:
    """Record that a file was delivered; return whether the delivery is still leased."""
    with database.transaction(write=True) as session:
        export = leases.lock_leased(Export, owned_by(lease))
        if export is None:
            return False
        row = session.get_one(ExportDelivery, file.delivery_id)  # unscoped: a file of the leased export
        row.status, row.delivered_at = DeliveryState.DELIVERED, utc_now()
        row.attempts, row.last_status_code, row.last_error = row.attempts + 1, outcome.status_code, None
        if export.delivery_attempts:
            export.delivery_attempts, export.delivery_error = 0, None
        return True


def record_failure(database: Database, lease: Lease, file: PendingFile | None, outcome: Outcome) -> None:
    """Record a failed attempt, of one file if it is known: the delivery waits, or it fails for good."""
    with database.transaction(write=True) as session:
        export = leases.lock_leased(Export, owned_by(lease))
        if export is None:
            return
        if file is not None:
            row = session.get_one(ExportDelivery, file.delivery_id)  # unscoped: as above
            row.attempts += 1
            row.last_status_code, row.last_error = outcome.status_code, outcome.error
        _record_attempt(export, outcome)


def release(database: Database, lease: Lease, *, counts_attempt: bool = False) -> None:
    """Return a delivery to the queue, if it is still leased; after an attempt that counts it waits."""
    if counts_attempt:
        record_failure(database, lease, None, Outcome(error="interrupted"))
        return
    with database.transaction(write=True):
        export = leases.lock_leased(Export, owned_by(lease))
        if export is not None:
            _wait_until(export, utc_now())


def complete(database: Database, lease: Lease) -> bool:
    """Record that all files were delivered; return whether the delivery was still leased."""
    with database.transaction(write=True):
        export = leases.lock_leased(Export, owned_by(lease))
        if export is None:
            return False
        _end(export, DeliveryState.DELIVERED, None)
        return True


def owned_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that an export still belongs to a lease."""
    return (
        Export.id == lease.export_id,
        Export.lease_owner == lease.token,
        Export.delivery_status == DeliveryState.RUNNING,
    )


def _available() -> ColumnElement[bool]:
    due = and_(Export.delivery_status == DeliveryState.PENDING, Export.delivery_next_attempt_at <= utc_now())
    is_lost = leases.is_expired(Export.lease_expires_at)
    lost = and_(Export.delivery_status == DeliveryState.RUNNING, is_lost)
    return and_(Export.status == ExportStatus.COMPLETED, or_(due, lost))


def _select_next() -> Select[Any]:
    """Return the query for the next delivery: tenants in turn, and what is due longest of a tenant."""
    return leases.select_in_turn(Export, _available(), Export.delivery_next_attempt_at.asc(), Export.id.asc())


def _record_attempt(export: Export, outcome: Outcome, is_due: bool = False) -> None:
    export.delivery_attempts += 1
    export.delivery_error = outcome.error
    if export.delivery_attempts > len(RETRY_DELAYS):
        _end(export, DeliveryState.FAILED, outcome.error)
        return
    jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
    backoff = RETRY_DELAYS[export.delivery_attempts - 1] * jitter
    delay = timedelta(0) if is_due else max(backoff, outcome.retry_after or timedelta(0))
    _wait_until(export, utc_now() + delay)


def _wait_until(export: Export, time: datetime) -> None:
    export.delivery_status, export.delivery_next_attempt_at = DeliveryState.PENDING, time
    export.lease_owner = export.lease_expires_at = None


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
