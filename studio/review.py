"""The review of pictures: a shot and its picture are approved, rejected, sent back and reopened together.

A shot is approved or exported exactly while it names such a picture. Whoever changes either locks the shot
first.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import utc_now
from db.errors import Conflict, InUse, ScopeMismatch
from db.models.generations import Prediction
from db.models.shootings import Shot
from db.session import current_session
from db.tenancy import current_caller, get_visible
from studio.state_machines import DELIVERABLE, next_prediction_status, next_shot_status
from studio.webhooks.outbox import publish


class PredictionAmbiguous(Conflict):
    """No picture was named, and there is not exactly one that waits for review."""

    code = "prediction_ambiguous"
    default_detail = "Name the picture: there is not exactly one that waits for review"


def approve_shot(shot: Shot, prediction_id: UUID | None, note: str | None) -> None:
    """Approve one picture and with it the locked shot; the one approved before returns to review.

    PredictionAmbiguous without an id unless exactly one waits; ScopeMismatch for a picture of another shot;
    NotFound; InvalidTransition for a rejected picture or a shot that is not in review; ShotBusy while it is
    being generated.
    """
    if prediction_id is not None:
        prediction = get_visible(Prediction, prediction_id, for_update=True)
        if prediction.shot_id != shot.id:
            raise ScopeMismatch("The picture belongs to another shot")
    else:
        next_shot_status(shot.status, "approve")  # a shot that is not in review says so rather than count
        waiting = _lock_predictions(shot, Prediction.status == "pending_review")
        if len(waiting) != 1:
            raise PredictionAmbiguous()
        prediction = waiting[0]
    _approve(shot, prediction, note)


def approve_prediction(prediction: Prediction, shot: Shot | None, note: str | None) -> None:
    """Approve a locked picture and, if it has one, its locked shot. Raises as `approve_shot_picture`."""
    if shot is None:
        prediction.status = next_prediction_status(prediction.status, "approve")
        _record_review(prediction, note)
    else:
        _approve(shot, prediction, note)
    current_session().flush()


def _approve(shot: Shot, prediction: Prediction, note: str | None) -> None:
    after = next_prediction_status(prediction.status, "approve")
    shot.status = next_shot_status(shot.status, "approve")
    for other in _lock_predictions(shot, Prediction.status == "approved", Prediction.id != prediction.id):
        other.status = next_prediction_status(other.status, "reopen")
    prediction.status = after
    _record_review(prediction, note)
    shot.approved_prediction_id = prediction.id
    shot.rejection_reason = shot.revision_note = None
    current_session().flush()
    _publish_event("shot.approved", shot, prediction_id=prediction.id)


def reject_prediction(prediction: Prediction, reason: str) -> None:
    """Reject a locked picture that is in review; InvalidTransition in another state."""
    prediction.status = next_prediction_status(prediction.status, "reject")
    _record_review(prediction, reason)
    current_session().flush()


def reopen_prediction(prediction: Prediction, shot: Shot | None) -> None:
    """Bring a locked picture back into review, and its locked shot if this was the approved picture.

    InvalidTransition for a picture that is in review.
    """
    prediction.status = next_prediction_status(prediction.status, "reopen")
    if shot is not None and shot.approved_prediction_id == prediction.id:
        shot.status = next_shot_status(shot.status, "reopen")
        shot.approved_prediction_id = None
    _record_review(prediction, None)
    current_session().flush()


def reject_shot(shot: Shot, reason: str) -> None:
    """Reject a locked shot that is in review; InvalidTransition in another state, ShotBusy while it is
    generated.
    """
    shot.status = next_shot_status(shot.status, "reject")
    shot.rejection_reason = reason
    current_session().flush()
    _publish_event("shot.rejected", shot)


def request_shot_revision(shot: Shot, note: str) -> None:
    """Ask for a revision of a locked shot that is in review; raises as `reject_shot_work`."""
    shot.status = next_shot_status(shot.status, "request_revision")
    shot.revision_note = note
    current_session().flush()


def reopen_shot(shot: Shot) -> None:
    """Bring a locked shot that was approved, exported or rejected, and its picture, back into review.

    Exports that hold the picture stay as they are.
    """
    shot.status = next_shot_status(shot.status, "reopen")
    for prediction in _lock_predictions(shot, Prediction.status.in_(DELIVERABLE)):
        prediction.status = next_prediction_status(prediction.status, "reopen")
        _record_review(prediction, None)
    shot.approved_prediction_id = shot.rejection_reason = None
    current_session().flush()


def delete_prediction(prediction: Prediction) -> None:
    """Delete a locked picture; InUse while it is approved or exported.

    Its file goes when nothing refers to it.
    """
    if prediction.status in DELIVERABLE:
        raise InUse("An approved or exported picture cannot be deleted; reopen it first")
    current_session().delete(prediction)
    current_session().flush()


def _lock_predictions(shot: Shot, *conditions: Any) -> list[Prediction]:
    # unscoped: the pictures of a shot that was loaded scoped
    query = select(Prediction).where(Prediction.shot_id == shot.id, *conditions)  # unscoped: see above
    query = query.order_by(Prediction.id).with_for_update(of=Prediction)
    return list(current_session().scalars(query.execution_options(populate_existing=True)))


def _publish_event(event_type: str, shot: Shot, **ids: UUID) -> None:
    publish(event_type, shot, shot.status, f"/api/v1/shots/{shot.id}", shooting_id=shot.shooting_id, **ids)


def _record_review(prediction: Prediction, note: str | None) -> None:
    prediction.reviewed_by, prediction.reviewed_at = current_caller().user_id, utc_now()
    prediction.review_note = note
