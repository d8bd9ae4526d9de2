"""Delete what organizations do not want to keep: uploads, rejected predictions, addresses in the audit log.

Each organization sets after how many days (`Organization.retention_*`). Runs concurrently with requests, in
short transactions; a killed run loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, or_, select, text

from db.base import utc_now
from db.models.generations import Prediction, PredictionStatus
from db.models.media import Upload
from db.models.organizations import Organization
from db.session import Database, current_session, current_write_connection
from studio.review import review

BATCH_SIZE = 200
MAX_BATCHES = 100
"""Per organization and kind in one run: others must not wait for one that has just set a retention."""

_CLEAR_ADDRESSES = text("SELECT sartiq_clear_audit_addresses(:organization, :before, :size)")

DeleteBatch = Callable[[UUID, datetime], int]


def enforce_retention(database: Database) -> int:
    """Delete what is older than the organizations keep; return the number of rows."""
    columns = [getattr(Organization, name) for name in _RULES]
    with database.transaction(write=False) as session:
        limited = select(Organization.id, *columns).where(or_(*(column.is_not(None) for column in columns)))
        organizations = session.execute(limited).all()
    return sum(
        _delete_batches(database, delete_batch, organization_id, utc_now() - timedelta(days=days))
        for organization_id, *limits in organizations
        for days, delete_batch in zip(limits, _RULES.values(), strict=True)
        if days is not None
    )


def _delete_batches(
    database: Database, delete_batch: DeleteBatch, organization_id: UUID, before: datetime
) -> int:
    total = 0
    for _ in range(MAX_BATCHES):
        with database.transaction(write=True):
            deleted = delete_batch(organization_id, before)
        total += deleted
        if deleted < BATCH_SIZE:
            break
    return total


def delete_uploads(organization_id: UUID, before: datetime) -> int:
    """Delete a batch of uploads. The images that they became stay as long as a resource uses them."""
    # unscoped: the uploads of one organization
    old = select(Upload.id).where(Upload.organization_id == organization_id, Upload.created_at < before)
    # unscoped: the uploads of one organization
    deleted = delete(Upload).where(Upload.id.in_(old.order_by(Upload.created_at).limit(BATCH_SIZE)))
    return len(current_session().scalars(deleted.returning(Upload.id)).all())


def delete_rejected_predictions(organization_id: UUID, before: datetime) -> int:
    """Delete a batch of predictions that were rejected. Garbage collection deletes their files."""
    rejected = (
        select(Prediction)  # unscoped: the predictions of one organization
        .where(
            Prediction.organization_id == organization_id,
            Prediction.status == PredictionStatus.REJECTED,
            # Uses the index: none is rejected before its creation.
            Prediction.created_at < before,
            func.coalesce(Prediction.reviewed_at, Prediction.updated_at) < before,
        )
        .order_by(Prediction.created_at, Prediction.id)
        .limit(BATCH_SIZE)
        .with_for_update(of=Prediction, skip_locked=True)
    )
    predictions = current_session().scalars(rejected).all()
    for prediction in predictions:
        review.delete_prediction(prediction)
    return len(predictions)


def clear_audit_addresses(organization_id: UUID, before: datetime) -> int:
    """Delete the addresses of a batch of audit events; everything else in them stays."""
    values = {"organization": organization_id, "before": before, "size": BATCH_SIZE}
    return int(current_write_connection().scalar(_CLEAR_ADDRESSES, values) or 0)


_RULES: dict[str, DeleteBatch] = {
    "retention_uploads_days": delete_uploads,
    "retention_rejected_predictions_days": delete_rejected_predictions,
    "retention_audit_addresses_days": clear_audit_addresses,
}
