"""The queue of exports: lease the next one, renew the lease, complete or fail the export.

The row is the queue (see `studio.leases`). The queue of account exports (`studio.account_exports`) shares the
functions that take a `LeasedArchive`. Knows nothing of how an archive is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import joinedload, selectinload

from db.base import utc_now
from db.models.account_exports import AccountExport
from db.models.destinations import DeliveryState
from db.models.exports import Export, ExportItem, ExportStatus
from db.models.generations import Prediction
from db.models.shootings import Shot
from db.session import Database, after_commit, current_session
from studio import leases
from studio.exports.archive import ArchiveEntry
from studio.media.storage import media_key
from studio.pubsub import DELIVERIES
from studio.state_machines import DELIVERABLE, next_prediction_status, next_shot_status
from studio.webhooks.events import emit_export_event, emit_shot_events

Archive = Export | AccountExport
AnyArchive = TypeVar("AnyArchive", Export, AccountExport)

LIFETIME = timedelta(days=30)
ACCOUNT_LIFETIME = timedelta(days=7)
"""Shorter, because the archive is a copy of everything that is personal."""
MAX_ATTEMPTS = 3
INTERNAL_ERROR = {"category": "internal", "message": "The archive could not be written", "retryable": True}
SIGNING_ERROR = {
    "category": "internal",
    "message": "A file could not be signed: the certificate of the server may have expired",
    "retryable": True,
}
INPUT_ERROR = {
    "category": "input",
    "message": "The file of a prediction is missing or has changed",
    "retryable": False,
}


class LeasedArchive(Protocol):
    """A row that one worker has leased, as plain values: no transaction stays open for it."""

    model: ClassVar[type[Archive]]

    @property
    def export_id(self) -> UUID:
        """The id of the row."""

    @property
    def token(self) -> str:
        """The token of the lease."""


@dataclass(frozen=True)
class Lease:
    """A leased export."""

    model: ClassVar[type[Archive]] = Export
    export_id: UUID
    token: str
    shooting: dict[str, Any]
    entries: tuple[ArchiveEntry, ...]
    prediction_ids: tuple[UUID, ...]


def count_available(database: Database, limit: int, model: type[Archive] = Export) -> int:
    """Return how many exports can be leased now, counted up to `limit`."""
    # unscoped: workers write the exports of every tenant
    return leases.count_available(database, select(model.id).where(_available(model)), limit)


def lease_next(database: Database, token: str, lease_duration: timedelta) -> Lease | None:
    """Lease the export that has waited longest to `token`, or return None if there is none.

    An export that was leased `MAX_ATTEMPTS` times without an end fails instead.
    """
    with database.transaction(write=True):
        query = select(Export)  # unscoped: workers write the exports of every tenant
        query = query.options(selectinload(Export.items).options(joinedload(ExportItem.media)))
        export = acquire_next(query, Export, token, lease_duration)
        if export is None:
            return None
        return Lease(
            export_id=export.id,
            token=token,
            shooting={"id": str(export.shooting_id), "name": export.shooting_name},
            entries=tuple(_to_archive_entry(item) for item in export.items),
            prediction_ids=tuple(item.prediction_id for item in export.items),
        )


def acquire_next(
    query: Select[AnyArchive], model: type[AnyArchive], token: str, lease_duration: timedelta
) -> AnyArchive | None:
    """Lease the row of a query that has waited longest; None if there is none, or if it failed instead."""
    available = query.where(_available(model)).order_by(model.created_at, model.id)
    export = leases.lock_next(available, model)
    if export is None:
        return None
    if export.attempts >= MAX_ATTEMPTS:
        _finish(export, ExportStatus.FAILED, INTERNAL_ERROR)
        return None
    export.status, export.progress = ExportStatus.RUNNING, 0
    export.attempts += 1
    leases.acquire(export, token, lease_duration)
    return export


def renew(database: Database, lease: LeasedArchive, progress: int, lease_duration: timedelta) -> bool:
    """Extend the lease and record the progress (0 to 99); return whether the export is still leased."""
    return leases.renew(database, lease.model, _owned_by(lease), lease_duration, {"progress": progress})


def try_complete(database: Database, lease: Lease, file_size: int, content_hash: str) -> bool:
    """Record the archive and mark predictions and shots as exported; return whether it was still leased.

    A prediction that is no longer approved keeps its status.
    """
    with database.transaction(write=True):
        # Shots are locked before the export: the deletion of a shooting locks them in this order too.
        shots = _lock_shots(lease)
        export = lock_leased(lease)
        if export is None:
            return False
        _mark_exported(shots, lease)
        complete(export, file_size, content_hash)
    return True


def complete(export: Archive, file_size: int, content_hash: str) -> None:
    """Record the archive of a locked export."""
    export.progress, export.file_size, export.content_hash = 100, file_size, content_hash
    _finish(export, ExportStatus.COMPLETED, None)


def release(database: Database, lease: LeasedArchive, *, counts_attempt: bool) -> None:
    """Return an export to the queue, if it is still leased."""
    with database.transaction(write=True):
        export = lock_leased(lease)
        if export is not None:
            export.status, export.progress = ExportStatus.PENDING, 0
            export.attempts -= not counts_attempt
            export.lease_owner = export.lease_expires_at = None


def fail(database: Database, lease: LeasedArchive, error: dict[str, Any]) -> None:
    """Record the failure if the export is still leased."""
    with database.transaction(write=True):
        export = lock_leased(lease)
        if export is not None:
            _finish(export, ExportStatus.FAILED, error)


def export_exists(database: Database, lease: LeasedArchive) -> bool:
    """Return whether the export has not been deleted."""
    model = lease.model
    with database.transaction(write=False) as reading:
        # unscoped: the leased row
        return reading.scalar(select(model.id).where(model.id == lease.export_id)) is not None


def _available(model: type[Archive]) -> ColumnElement[bool]:
    lost = and_(model.status == ExportStatus.RUNNING, leases.is_expired(model.lease_expires_at))
    return or_(model.status == ExportStatus.PENDING, lost)


def _owned_by(lease: LeasedArchive) -> tuple[ColumnElement[bool], ...]:
    model = lease.model
    return (
        model.id == lease.export_id,
        # compared: by the database, and no client sends a token
        model.lease_owner == lease.token,
        model.status == ExportStatus.RUNNING,
    )


def lock_leased(lease: LeasedArchive) -> Archive | None:
    """Return the leased export, locked, or None if it is no longer leased."""
    return leases.lock_leased(lease.model, _owned_by(lease))


def _to_archive_entry(item: ExportItem) -> ArchiveEntry:
    key = media_key(item.media_id, item.media.extension)
    return ArchiveEntry(key, item.file_name, item.content_hash, item.file_size, item.facts)


def _finish(export: Archive, status: ExportStatus, error: dict[str, Any] | None) -> None:
    is_of_account = isinstance(export, AccountExport)
    export.status, export.error = status, error
    export.completed_at = utc_now()
    export.expires_at = export.completed_at + (ACCOUNT_LIFETIME if is_of_account else LIFETIME)
    export.lease_owner = export.lease_expires_at = None
    if isinstance(export, Export) and export.destination_id is not None:
        _start_delivery(export)
    current_session().flush()
    # Webhooks belong to tenants, and no tenant sees what a user does with the own account.
    if isinstance(export, Export):
        emit_export_event(f"export.{status}", export)


def _start_delivery(export: Export) -> None:
    """Make the delivery to the destination due, or end it if there is no archive."""
    if export.status == ExportStatus.COMPLETED:
        export.delivery_next_attempt_at = export.completed_at
        after_commit(DELIVERIES.notify)
    else:
        export.delivery_status, export.delivery_error = DeliveryState.FAILED, "export_failed"
        export.delivery_ended_at = export.completed_at


def _lock_shots(lease: Lease) -> dict[UUID, Shot]:
    shots = (
        select(Shot)  # unscoped: the shots of the leased export
        .join(Prediction, Prediction.shot_id == Shot.id)
        .where(Prediction.id.in_(lease.prediction_ids))
        .order_by(Shot.id)
        .with_for_update(of=Shot)
        .execution_options(populate_existing=True)
    )
    return {shot.id: shot for shot in current_session().scalars(shots)}


def _mark_exported(shots: dict[UUID, Shot], lease: Lease) -> None:
    predictions = (
        select(Prediction)  # unscoped: the predictions of the leased export
        .where(Prediction.id.in_(lease.prediction_ids), Prediction.status.in_(DELIVERABLE))
        .order_by(Prediction.id)
        .with_for_update(of=Prediction)
        .execution_options(populate_existing=True)
    )
    before = {shot.id: shot.status for shot in shots.values()}
    for prediction in current_session().scalars(predictions):
        prediction.status = next_prediction_status(prediction.status, "export")
        shot = shots.get(prediction.shot_id) if prediction.shot_id else None
        if shot is not None and shot.approved_prediction_id == prediction.id:
            shot.status = next_shot_status(shot.status, "export")
    current_session().flush()
    # A shot that was exported before changes nothing.
    exported = [shot for shot in shots.values() if shot.status != before[shot.id]]
    emit_shot_events("shot.exported", exported, export_id=lease.export_id)
