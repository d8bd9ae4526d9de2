"""The queues of exports and of account exports: what is special about their rows.

Knows nothing of how an archive is written.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from db.base import utc_now
from db.models.account_exports import AccountExport
from db.models.destinations import DeliveryState
from db.models.exports import Export, ExportItem, ExportStatus
from db.models.generations import Prediction
from db.models.shootings import Shot
from db.session import Database, after_commit, current_session
from studio.exports.archive import ArchiveEntry, SourceFileMissing
from studio.exports.content_credentials import SigningFailed
from studio.infrastructure.pubsub import DELIVERIES
from studio.infrastructure.storage import media_key
from studio.queue.row_queue import Lease, RowQueue, lock_next
from studio.state_machines import DELIVERABLE, next_prediction_status, next_shot_status
from studio.webhooks.events import emit_export_event, emit_shot_events

logger = logging.getLogger(__name__)

Archive = Export | AccountExport

LIFETIME = timedelta(days=30)
ACCOUNT_LIFETIME = timedelta(days=7)
"""Shorter, because the archive is a copy of everything that is personal."""
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


@dataclass(frozen=True, kw_only=True)
class ExportLease(Lease):
    """A leased export."""

    shooting: dict[str, Any]
    entries: tuple[ArchiveEntry, ...]
    prediction_ids: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True)
class AccountExportLease(Lease):
    """A leased account export."""

    user_id: UUID
    requested_at: datetime


def _take_export(export: Export, token: str) -> ExportLease:
    # unscoped: the items of the leased export
    query = select(ExportItem).where(ExportItem.export_id == export.id).order_by(ExportItem.position)
    items = current_session().scalars(query.options(joinedload(ExportItem.media))).all()
    return ExportLease(
        row_id=export.id,
        token=token,
        shooting={"id": str(export.shooting_id), "name": export.shooting_name},
        entries=tuple(_to_archive_entry(item) for item in items),
        prediction_ids=tuple(item.prediction_id for item in items),
    )


def _take_account_export(export: AccountExport, token: str) -> AccountExportLease:
    return AccountExportLease(
        row_id=export.id, token=token, user_id=export.user_id, requested_at=export.created_at
    )


def _choose_account_export() -> AccountExport | None:
    # Not in turn: an account has at most one open export.
    query = select(AccountExport).where(ACCOUNT_EXPORTS.available())
    return lock_next(query.order_by(AccountExport.created_at, AccountExport.id), AccountExport)


def _start(export: Archive) -> None:
    export.status, export.progress = ExportStatus.RUNNING, 0


def _requeue(export: Archive, _available_at: datetime | None, _error: object) -> None:
    export.status, export.progress = ExportStatus.PENDING, 0


def complete_export(lease: ExportLease, file_size: int, content_hash: str) -> None:
    """Record the archive of a leased export and mark its predictions and shots as exported.

    A prediction that is no longer approved keeps its status.

    Raises:
        LeaseLost: The export was deleted or belongs to another worker.
    """
    # Shots are locked before the export: the deletion of a shooting locks them in this order too.
    shots = _lock_shots(lease)
    export = EXPORTS.lock(lease)
    _mark_exported(shots, lease)
    _complete(export, file_size, content_hash)


def complete_account_export(lease: AccountExportLease, file_size: int, content_hash: str) -> None:
    """Record the archive of a leased account export.

    Raises:
        LeaseLost: The export was deleted or belongs to another worker.
    """
    _complete(ACCOUNT_EXPORTS.lock(lease), file_size, content_hash)


def export_exists(database: Database, model: type[Archive], export_id: UUID) -> bool:
    """Return whether an export has not been deleted."""
    with database.transaction(write=False) as reading:
        # unscoped: the leased row
        return reading.scalar(select(model.id).where(model.id == export_id)) is not None


def _to_archive_entry(item: ExportItem) -> ArchiveEntry:
    key = media_key(item.media_id, item.media.extension)
    return ArchiveEntry(key, item.file_name, item.content_hash, item.file_size, item.facts)


def _complete(export: Archive, file_size: int, content_hash: str) -> None:
    export.progress, export.file_size, export.content_hash = 100, file_size, content_hash
    _end(export, ExportStatus.COMPLETED, None)


def _end(export: Archive, status: ExportStatus, error: dict[str, Any] | None) -> None:
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


def _describe_signing(error: SigningFailed) -> dict[str, Any]:
    logger.error("a file was not signed", exc_info=error)
    return SIGNING_ERROR


def _fail(export: Archive, error: dict[str, Any] | None) -> None:
    _end(export, ExportStatus.FAILED, error or INTERNAL_ERROR)


def _start_delivery(export: Export) -> None:
    """Make the delivery to the destination due, or end it if there is no archive."""
    if export.status == ExportStatus.COMPLETED:
        export.delivery_next_attempt_at = export.completed_at
        after_commit(DELIVERIES.notify)
    else:
        export.delivery_status, export.delivery_error = DeliveryState.FAILED, "export_failed"
        export.delivery_ended_at = export.completed_at


def _lock_shots(lease: ExportLease) -> dict[UUID, Shot]:
    shots = (
        select(Shot)  # unscoped: the shots of the leased export
        .join(Prediction, Prediction.shot_id == Shot.id)
        .where(Prediction.id.in_(lease.prediction_ids))
        .order_by(Shot.id)
        .with_for_update(of=Shot)
        .execution_options(populate_existing=True)
    )
    return {shot.id: shot for shot in current_session().scalars(shots)}


def _mark_exported(shots: dict[UUID, Shot], lease: ExportLease) -> None:
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
    emit_shot_events("shot.exported", exported, export_id=lease.row_id)


EXPORTS = RowQueue(
    name="export",
    model=Export,
    take=_take_export,
    end_failed=_fail,
    order=lambda: (Export.created_at.asc(), Export.id.asc()),
    start=_start,
    requeue=_requeue,
    progress_values=lambda progress: {"progress": progress},
    permanent={SourceFileMissing: lambda _error: INPUT_ERROR, SigningFailed: _describe_signing},
)
ACCOUNT_EXPORTS = RowQueue(
    name="account export",
    model=AccountExport,
    take=_take_account_export,
    end_failed=_fail,
    choose=_choose_account_export,
    start=_start,
    requeue=_requeue,
    progress_values=lambda progress: {"progress": progress},
)
