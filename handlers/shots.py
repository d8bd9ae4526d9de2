"""Shots: the pictures to be delivered. Looks make them; actions move them through generation and review."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload

from db.models.presets import ShotType
from db.models.shootings import Look, Shooting, Shot
from db.session import session
from db.tenancy import get_owned, list_scope
from handlers.answers import Answer, ok
from handlers.conditional import apply_changes, get_for_change
from handlers.ordering import ordered
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.references import find_picture, require_known
from handlers.schemas.shots import ShotSchema
from studio import review
from studio.generation import check_order

WITH_TYPE = [joinedload(Shot.shot_type)]
SHOTS = Listing(
    Shot,
    ShotSchema,
    filters={
        "shooting_id": Shot.shooting_id,
        "look_id": Shot.look_id,
        "status": Shot.status,
        "shot_type_id": Shot.shot_type_id,
    },
)


@requires(Permission.SHOTS_READ)
def list_shots(organization_id: UUID | None = None, **asked: Any) -> Answer:
    """The shots of one scope."""
    require_known(
        {
            Shooting: asked.get("shooting_id"),
            Look: asked.get("look_id"),
            ShotType: asked.get("shot_type_id"),
        }
    )
    return SHOTS.page(asked, list_scope(organization_id))


@requires(Permission.SHOTS_READ)
def get_shot(shot_id: UUID) -> Answer:
    """One shot."""
    return ok(get_owned(Shot, shot_id, options=WITH_TYPE), ShotSchema)


@requires(Permission.SHOTS_WRITE)
def update_shot(shot_id: UUID, body: dict[str, Any]) -> Answer:
    """Change the notes."""
    shot = get_for_change(Shot, shot_id, ShotSchema, WITH_TYPE)
    apply_changes(shot, body, "notes")
    session().flush()
    return ok(shot, ShotSchema)


@requires(Permission.SHOTS_GENERATE)
def generate_shot(shot_id: UUID, body: dict[str, Any], validate_only: bool = False) -> Answer:
    """Queue a generation for one shot; the generation reports progress and result."""
    shot = _locked(shot_id)
    order = {**body, "shot_id": shot.id, "batch_size": body["num_predictions"]}
    del order["num_predictions"]
    return ordered(check_order(order, shot.organization_id, shot, find_picture), validate_only)


@requires(Permission.SHOTS_REVIEW)
def approve_shot(shot_id: UUID, body: dict[str, Any]) -> Answer:
    """Approve one picture and with it the shot."""
    shot = _locked(shot_id)
    review.approve_shot_picture(shot, body.get("prediction_id"), body.get("note"))
    return ok(shot, ShotSchema)


@requires(Permission.SHOTS_REVIEW)
def reject_shot(shot_id: UUID, body: dict[str, Any]) -> Answer:
    """Reject a shot that is in review."""
    shot = _locked(shot_id)
    review.reject_shot_work(shot, body["reason"])
    return ok(shot, ShotSchema)


@requires(Permission.SHOTS_REVIEW)
def request_shot_revision(shot_id: UUID, body: dict[str, Any]) -> Answer:
    """Send a shot that is in review back to the studio."""
    shot = _locked(shot_id)
    review.send_shot_back(shot, body["note"])
    return ok(shot, ShotSchema)


@requires(Permission.SHOTS_REVIEW)
def reopen_shot(shot_id: UUID) -> Answer:
    """Bring an approved, exported or rejected shot back into review."""
    shot = _locked(shot_id)
    review.reopen_shot_review(shot)
    return ok(shot, ShotSchema)


def _locked(shot_id: UUID) -> Shot:
    return get_owned(Shot, shot_id, for_update=True, options=WITH_TYPE)
