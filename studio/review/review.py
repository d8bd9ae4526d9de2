"""Review predictions: approve, reject and reopen a shot together with its prediction.

A shot is approved or exported exactly while its `approved_prediction_id` names a prediction in the same
state. Every change of either locks the shot first. Every function changes rows that the caller has loaded
and locked, and emits one event about each row whose state changes.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import utc_now
from db.caller import current_caller
from db.errors import Conflict, InUse, ScopeMismatch
from db.models.generations import Prediction
from db.models.shootings import Shot
from db.session import current_session
from db.tenancy import get_visible
from studio.publications.publish import unpublish_prediction
from studio.shootings.shots import require_next_status
from studio.state_machines import DELIVERABLE, next_prediction_status
from studio.webhooks.events import emit_prediction_event, emit_shot_event

MAX_LISTED_PREDICTIONS = 100
"""The maximum of `allowed_values` in the contract."""


class PredictionAmbiguous(Conflict):
    """No prediction was named, and the shot does not have exactly one prediction in review."""

    code = "prediction_ambiguous"
    default_detail = "`prediction_id` is required: the shot does not have exactly one prediction in review"


def approve_shot(shot: Shot, prediction_id: UUID | None, note: str | None) -> None:
    """Approve a locked shot with one of its predictions. A prediction approved before returns to review.

    Args:
        shot: The locked shot.
        prediction_id: The prediction, or None for the only one in review.
        note: A note for the review.

    Raises:
        PredictionAmbiguous: `prediction_id` is None, and the shot does not have exactly one prediction in
            review.
        ScopeMismatch: The prediction belongs to another shot.
        NotFound: The prediction is not visible for the caller.
        InvalidTransition: The prediction is rejected, or the shot is not in review.
        ShotBusy: A generation of the shot is running.
    """
    if prediction_id is not None:
        prediction = get_visible(Prediction, prediction_id, for_update=True)
        if prediction.shot_id != shot.id:
            raise ScopeMismatch("`prediction_id` belongs to another shot", value=prediction_id)
    else:
        require_next_status(shot, "approve")  # reports a wrong status before the number of predictions
        candidates = _lock_predictions(shot, Prediction.status == "pending_review")
        if len(candidates) != 1:
            ids = [str(candidate.id) for candidate in candidates]
            raise PredictionAmbiguous(pointer="/prediction_id", allowed_values=ids[:MAX_LISTED_PREDICTIONS])
        prediction = candidates[0]
    _approve(shot, prediction, note)


def approve_prediction(prediction: Prediction, shot: Shot | None, note: str | None) -> None:
    """Approve a locked prediction and its locked shot, if it has one. Raises the errors of `approve_shot`."""
    if shot is None:
        before = prediction.status
        prediction.status = next_prediction_status(before, "approve")
        _record_review(prediction, note)
        current_session().flush()
        if prediction.status != before:
            emit_prediction_event("prediction.approved", prediction)
    else:
        _approve(shot, prediction, note)


def _approve(shot: Shot, prediction: Prediction, note: str | None) -> None:
    before = prediction.status
    new_status = next_prediction_status(before, "approve")
    new_shot_status = require_next_status(shot, "approve")
    replaced: list[Prediction] = []
    if shot.approved_prediction_id not in (None, prediction.id):
        replaced = _lock_predictions(shot, Prediction.status == "approved", Prediction.id != prediction.id)
    for other in replaced:
        _reopen(other)
    # Set after the statements above, which flush: the shot is written once.
    shot.status, prediction.status = new_shot_status, new_status
    _record_review(prediction, note)
    shot.approved_prediction_id = prediction.id
    shot.rejection_reason = shot.revision_note = None
    current_session().flush()
    # Approving the approved prediction again only changes the note of the review.
    if new_status != before:
        for other in replaced:
            emit_prediction_event("prediction.reopened", other)
        emit_prediction_event("prediction.approved", prediction)
        emit_shot_event("shot.approved", shot)


def reject_prediction(prediction: Prediction, reason: str) -> None:
    """Reject a locked prediction. Raises InvalidTransition if it is not in review."""
    prediction.status = next_prediction_status(prediction.status, "reject")
    _record_review(prediction, reason)
    current_session().flush()
    emit_prediction_event("prediction.rejected", prediction)


def reopen_prediction(prediction: Prediction, shot: Shot | None) -> None:
    """Return a locked prediction to review, and its locked shot too if this is the approved prediction.

    Raises:
        InvalidTransition: The prediction is in review.
    """
    _reopen(prediction)
    reopened = shot if shot is not None and shot.approved_prediction_id == prediction.id else None
    if reopened is not None:
        reopened.status = require_next_status(reopened, "reopen")
        reopened.approved_prediction_id = None
    _record_review(prediction, None)
    current_session().flush()
    emit_prediction_event("prediction.reopened", prediction)
    if reopened is not None:
        emit_shot_event("shot.reopened", reopened)


def reject_shot(shot: Shot, reason: str) -> None:
    """Reject a locked shot.

    Raises:
        InvalidTransition: The shot is not in review.
        ShotBusy: A generation of the shot is running.
    """
    shot.status = require_next_status(shot, "reject")
    shot.rejection_reason = reason
    current_session().flush()
    emit_shot_event("shot.rejected", shot)


def request_shot_revision(shot: Shot, note: str) -> None:
    """Request a revision of a locked shot. Raises the errors of `reject_shot`."""
    shot.status = require_next_status(shot, "request_revision")
    shot.revision_note = note
    current_session().flush()
    emit_shot_event("shot.revision_requested", shot)


def reopen_shot(shot: Shot) -> None:
    """Return a locked shot and its approved prediction to review. Existing exports do not change.

    Raises:
        InvalidTransition: The shot is not approved, exported or rejected.
    """
    shot.status = require_next_status(shot, "reopen")
    predictions = _lock_predictions(shot, Prediction.status.in_(DELIVERABLE))
    for prediction in predictions:
        _reopen(prediction)
        _record_review(prediction, None)
    shot.approved_prediction_id = shot.rejection_reason = None
    current_session().flush()
    for prediction in predictions:
        emit_prediction_event("prediction.reopened", prediction)
    emit_shot_event("shot.reopened", shot)


def delete_prediction(prediction: Prediction) -> None:
    """Delete a locked prediction. Garbage collection deletes its file.

    Raises:
        InUse: The prediction is approved or exported.
    """
    if prediction.status in DELIVERABLE:
        raise InUse("An approved or exported prediction cannot be deleted: reopen it first")
    current_session().delete(prediction)
    current_session().flush()
    emit_prediction_event("prediction.deleted", prediction)


def _reopen(prediction: Prediction) -> None:
    """Return a locked prediction to review, and end its publication."""
    prediction.status = next_prediction_status(prediction.status, "reopen")
    unpublish_prediction(prediction)


def _lock_predictions(shot: Shot, *conditions: Any) -> list[Prediction]:
    # unscoped: the predictions of a shot that was loaded for the caller
    query = select(Prediction).where(Prediction.shot_id == shot.id, *conditions)  # unscoped: see above
    query = query.order_by(Prediction.id).with_for_update(of=Prediction)
    return list(current_session().scalars(query.execution_options(populate_existing=True)))


def _record_review(prediction: Prediction, note: str | None) -> None:
    caller = current_caller()
    prediction.reviewed_by, prediction.reviewed_by_name = caller.account_id, caller.name
    prediction.reviewed_at = prediction.reviewer_named_at = utc_now()
    prediction.review_note = note
