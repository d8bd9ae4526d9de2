"""The queue of exports: claim, renew, finish and fail. The row is the queue, as it is for generations.

Whoever claims a row writes a token of its own into it, and every later write asks for that token.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import joinedload, selectinload

from db.base import affected_one, utc_now
from db.models.exports import Export, ExportItem, ExportStatus
from db.models.generations import Prediction
from db.models.shootings import Shot
from db.session import Database, current_session
from studio.exports.archive import ArchiveEntry
from studio.media.storage import media_key
from studio.state_machines import DELIVERABLE, next_prediction_status, next_shot_status

LIFETIME = timedelta(days=30)
MAX_ATTEMPTS = 3
INTERNAL_ERROR = {"category": "internal", "message": "The archive could not be written", "retryable": True}
INPUT_ERROR = {
    "category": "input",
    "message": "The file of a picture is gone or was changed",
    "retryable": False,
}


@dataclass(frozen=True)
class Lease:
    """An export in the hands of one worker, as plain values: no transaction stays open for it."""

    export_id: UUID
    token: str
    shooting: dict[str, Any]
    entries: tuple[ArchiveEntry, ...]
    prediction_ids: tuple[UUID, ...]


def has_available(database: Database) -> bool:
    """Whether there is anything to claim; reads only, so that idle workers keep no writer waiting."""
    with database.transaction(write=False) as reading:
        # unscoped: workers work for everybody
        return reading.scalar(select(Export.id).where(_available()).limit(1)) is not None


def lease_next(database: Database, token: str, lease_duration: timedelta) -> Lease | None:
    """The export that waits longest, now leased to `token`; None when there is none.

    One that was claimed too often without an end fails here.
    """
    with database.transaction(write=True) as writing:
        first = select(Export).where(_available())  # unscoped: workers work for everybody
        first = first.options(selectinload(Export.items).options(joinedload(ExportItem.media)))
        first = first.order_by(Export.created_at, Export.id).limit(1)
        export = writing.scalar(first.with_for_update(of=Export, skip_locked=True))
        if export is None:
            return None
        if export.attempts >= MAX_ATTEMPTS:
            _finish(export, ExportStatus.FAILED, INTERNAL_ERROR)
            return None
        export.status, export.progress = ExportStatus.RUNNING, 0
        export.attempts += 1
        export.lease_owner, export.lease_expires_at = token, utc_now() + lease_duration
        return Lease(
            export_id=export.id,
            token=token,
            shooting={"id": str(export.shooting_id), "name": export.shooting_name},
            entries=tuple(_to_archive_entry(item) for item in export.items),
            prediction_ids=tuple(item.prediction_id for item in export.items),
        )


def renew(database: Database, lease: Lease, progress: int, lease_duration: timedelta) -> bool:
    """Prolong the lease and tell the progress (0..99); False when the export is no longer ours."""
    with database.transaction(write=True) as writing:
        changed = writing.execute(
            update(Export)  # unscoped: the row that was claimed
            .where(*_owned_by(lease))
            .values(progress=progress, lease_expires_at=utc_now() + lease_duration)
            .execution_options(synchronize_session=False)
        )
        return affected_one(changed)


def try_complete(database: Database, lease: Lease, file_size: int, content_hash: str) -> bool:
    """Record the archive and mark pictures and shots as exported; False when the export is no longer ours.

    An approval that was withdrawn since the order stays withdrawn.
    """
    with database.transaction(write=True):
        # Shots before the export: whoever deletes a shooting has locked its shots when the export goes.
        shots = _lock_shots(lease)
        export = _lock_leased(lease)
        if export is None:
            return False
        _mark_exported(shots, lease)
        export.progress, export.file_size, export.content_hash = 100, file_size, content_hash
        _finish(export, ExportStatus.COMPLETED, None)
    return True


def fail(database: Database, lease: Lease, error: dict[str, Any]) -> None:
    """Record the failure, if the export is still ours."""
    with database.transaction(write=True):
        export = _lock_leased(lease)
        if export is not None:
            _finish(export, ExportStatus.FAILED, error)


def export_exists(database: Database, export_id: UUID) -> bool:
    """Whether the export was not deleted meanwhile."""
    with database.transaction(write=False) as reading:
        # unscoped: the row that was claimed
        return reading.scalar(select(Export.id).where(Export.id == export_id)) is not None


def _available() -> ColumnElement[bool]:
    lost = and_(Export.status == ExportStatus.RUNNING, Export.lease_expires_at < utc_now())
    return or_(Export.status == ExportStatus.PENDING, lost)


def _owned_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        Export.id == lease.export_id,
        Export.lease_owner == lease.token,
        Export.status == ExportStatus.RUNNING,
    )


def _lock_leased(lease: Lease) -> Export | None:
    # unscoped: the row that was claimed
    ours = select(Export).where(*_owned_by(lease))  # unscoped: see above
    return current_session().scalar(ours.with_for_update(of=Export).execution_options(populate_existing=True))


def _to_archive_entry(item: ExportItem) -> ArchiveEntry:
    key = media_key(item.media_id, item.media.extension)
    return ArchiveEntry(key, item.file_name, item.content_hash, item.file_size, item.facts)


def _finish(export: Export, status: ExportStatus, error: dict[str, Any] | None) -> None:
    export.status, export.error = status, error
    export.completed_at = utc_now()
    export.expires_at = export.completed_at + LIFETIME
    export.lease_owner = export.lease_expires_at = None


def _lock_shots(lease: Lease) -> dict[UUID, Shot]:
    shots = (
        select(Shot)  # unscoped: the shots of the claimed pictures
        .join(Prediction, Prediction.shot_id == Shot.id)
        .where(Prediction.id.in_(lease.prediction_ids))
        .order_by(Shot.id)
        .with_for_update(of=Shot)
        .execution_options(populate_existing=True)
    )
    return {shot.id: shot for shot in current_session().scalars(shots)}


def _mark_exported(shots: dict[UUID, Shot], lease: Lease) -> None:
    pictures = (
        select(Prediction)  # unscoped: the claimed pictures
        .where(Prediction.id.in_(lease.prediction_ids), Prediction.status.in_(DELIVERABLE))
        .order_by(Prediction.id)
        .with_for_update(of=Prediction)
        .execution_options(populate_existing=True)
    )
    for prediction in current_session().scalars(pictures):
        prediction.status = next_prediction_status(prediction.status, "export")
        shot = shots.get(prediction.shot_id) if prediction.shot_id else None
        if shot is not None and shot.approved_prediction_id == prediction.id:
            shot.status = next_shot_status(shot.status, "export")
