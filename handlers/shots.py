"""Shots: the images to deliver. Looks create them; actions move them through generation and review."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload

from db.caller import require_permission_in
from db.models.presets import ShotType
from db.models.products import Product
from db.models.shootings import Look, Shooting, Shot
from db.session import current_session
from db.tenancy import get_visible
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import apply_changes, get_for_update
from handlers.common.reads import One
from handlers.common.references import OF_PRODUCTS
from handlers.common.responses import ApiResponse, ok
from handlers.generations import generation_response
from handlers.pipeline.batches import Action, lock_targets, run_batch
from handlers.schemas.shots import ShotSchema
from studio.generations.inputs import resolve, sharing_rows
from studio.generations.request import GenerationRequest
from studio.generations.snapshot import freeze
from studio.review import review

SHOT_TYPE_OPTIONS = [joinedload(Shot.shot_type)]
SHOTS = ListQuery(
    Shot,
    ShotSchema,
    filters={
        "shooting_id": Shot.shooting_id,
        "look_id": Shot.look_id,
        "status": Shot.status,
        "shot_type_id": Shot.shot_type_id,
        "products": OF_PRODUCTS["shots"],
    },
)


list_shots = Page(
    SHOTS,
    Permission.SHOTS_READ,
    narrowed_by={"shooting_id": Shooting, "look_id": Look, "shot_type_id": ShotType, "product_id": Product},
)


get_shot = One(Shot, ShotSchema, Permission.SHOTS_READ)


@requires(Permission.SHOTS_WRITE)
def update_shot(shot_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update the notes, the external id and the metadata of a shot."""
    shot = get_for_update(Shot, shot_id, ShotSchema, SHOT_TYPE_OPTIONS)
    apply_changes(shot, body)
    current_session().flush()
    return ok(shot, ShotSchema)


@requires(Permission.SHOTS_GENERATE)
def generate_shot(shot_id: UUID, body: dict[str, Any], validate_only: bool = False) -> ApiResponse:
    """Queue a generation for one shot."""
    shot = _get_locked(shot_id)
    request = GenerationRequest.from_body(body, shot.id)
    draft = freeze(resolve(request, shot.organization_id, shot))
    return generation_response(draft, validate_only)


@requires(Permission.SHOTS_REVIEW)
def approve_shot(shot_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Approve a prediction of a shot and the shot."""
    shot = _get_locked(shot_id)
    review.approve_shot(shot, body.get("prediction_id"), body.get("note"))
    return ok(shot, ShotSchema)


@requires(Permission.SHOTS_REVIEW)
def reject_shot(shot_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Reject a shot that is in review."""
    shot = _get_locked(shot_id)
    review.reject_shot(shot, body["reason"])
    return ok(shot, ShotSchema)


@requires(Permission.SHOTS_REVIEW)
def request_shot_revision(shot_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Request a revision of a shot that is in review."""
    shot = _get_locked(shot_id)
    review.request_shot_revision(shot, body["note"])
    return ok(shot, ShotSchema)


@requires(Permission.SHOTS_REVIEW)
def reopen_shot(shot_id: UUID) -> ApiResponse:
    """Return an approved, exported or rejected shot to review."""
    shot = _get_locked(shot_id)
    review.reopen_shot(shot)
    return ok(shot, ShotSchema)


BATCH_ACTIONS = {"generate": Action(generate_shot, "shot_id"), "approve": Action(approve_shot, "shot_id")}


@requires(Permission.SHOTS_READ)
def batch_shots(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Generate and approve shots; each item requires the permission of its action."""
    require_permission_in(organization_id)
    items = body["items"]
    shots = lock_targets(Shot, items, organization_id)
    with sharing_rows(shots if any(item["action"] == "generate" for item in items) else ()):
        return run_batch(items, BATCH_ACTIONS, organization_id, shots)


def _get_locked(shot_id: UUID) -> Shot:
    return get_visible(Shot, shot_id, for_update=True, options=SHOT_TYPE_OPTIONS)
