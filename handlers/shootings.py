"""Shootings and their looks. A look makes the shots; see `studio/shootings/shootings.py` for the rules."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy.orm import selectinload

from db.base import utc_now
from db.errors import ScopeMismatch
from db.fast_path.insert import insert_row
from db.models.brands import Brand
from db.models.guidelines import Guidelines
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.products import Product
from db.models.shootings import Look, Shooting
from db.models.styles import Style
from db.models.subjects import Subject
from db.session import current_session, rollback_and_continue
from db.tenancy import get_visible
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import apply_changes, get_for_update
from handlers.common.reads import One
from handlers.common.references import (
    OF_PRODUCTS,
    check_references,
    deduplicate_ids,
    resolve_ownership,
)
from handlers.common.responses import ApiResponse, created, no_content, ok, serialize_many
from handlers.schemas.shootings import LookSchema, ShootingSchema, serialize_batch
from studio.generations import batch
from studio.generations.request import GenerationRequest
from studio.shootings import look_batches, shootings

LIST_OPTIONS = [
    selectinload(Look.shots),
    selectinload(Look.shot_type_links),
    selectinload(Look.product_links),
    selectinload(Look.guidelines_links),
]
DEFAULT_TIME_UNTIL_DUE = timedelta(days=30)
SHOOTINGS = ListQuery(
    Shooting,
    ShootingSchema,
    filters={"brand_id": Shooting.brand_id, "phase": Shooting.phase, "archived": Shooting.archived},
    search_columns=(Shooting.name,),
)
LOOKS = ListQuery(
    Look,
    LookSchema,
    parent={"shooting_id": Look.shooting_id},
    filters={"products": OF_PRODUCTS["looks"]},
)


list_shootings = Page(SHOOTINGS, Permission.SHOOTINGS_READ, narrowed_by={"brand_id": Brand})


@requires(Permission.SHOOTINGS_WRITE)
def create_shooting(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a shooting, with its inline guidelines if it has any."""
    in_body = body.pop("organization_id", None)
    if organization_id is not None and in_body not in (None, organization_id):
        raise ScopeMismatch("`organization_id` differs from the query parameter", pointer="/organization_id")
    shooting = Shooting(**resolve_ownership(organization_id or in_body))
    body.setdefault("due_date", utc_now() + DEFAULT_TIME_UNTIL_DUE)
    inline = body.pop("default_guidelines", None)
    check_references(shooting, body, brand_id=Brand, default_guidelines_id=Guidelines)
    apply_changes(shooting, body)
    if inline is not None:
        shooting.default_guidelines_id = _create_inline_guidelines(shooting, inline).id
    insert_row(shooting)
    return created(shooting, ShootingSchema, f"/api/v1/shootings/{shooting.id}")


get_shooting = One(Shooting, ShootingSchema, Permission.SHOOTINGS_READ)


@requires(Permission.SHOOTINGS_WRITE)
def update_shooting(shooting_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a shooting; the phase changes along the state machine."""
    shooting = get_for_update(Shooting, shooting_id, ShootingSchema)
    check_references(shooting, body, brand_id=Brand, default_guidelines_id=Guidelines)
    # The event about the phase has the new values.
    apply_changes(shooting, body, "external_id", "metadata")
    if "phase" in body:
        shootings.change_phase(shooting, body.pop("phase"))
    apply_changes(shooting, body)
    current_session().flush()
    return ok(shooting, ShootingSchema)


@requires(Permission.SHOOTINGS_WRITE)
def delete_shooting(shooting_id: UUID) -> ApiResponse:
    """Delete a shooting with its looks, shots and predictions."""
    shootings.delete_shooting(get_for_update(Shooting, shooting_id, ShootingSchema))
    return no_content()


@requires(Permission.SHOOTINGS_WRITE)
def duplicate_shooting(shooting_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Copy a shooting with its looks; all shots of the copy are pending."""
    due_date = body.get("due_date") or utc_now() + DEFAULT_TIME_UNTIL_DUE
    shooting = get_visible(Shooting, shooting_id, for_update=True)
    copy = look_batches.duplicate_shooting(shooting, body.get("name"), due_date)
    return created(copy, ShootingSchema, f"/api/v1/shootings/{copy.id}")


@requires(Permission.SHOTS_GENERATE)
def generate_shooting(shooting_id: UUID, body: dict[str, Any], validate_only: bool = False) -> ApiResponse:
    """Queue a generation for each pending shot, or only return what that would cost."""
    shooting = get_visible(Shooting, shooting_id, for_update=True)
    results = batch.generate_shooting(shooting, GenerationRequest.from_body(body))
    if validate_only:
        rollback_and_continue()
        return ApiResponse(200, serialize_batch(results, validate_only=True))
    scope = {"organization_id": shooting.organization_id} if shooting.organization_id else {}
    query = urlencode(scope | {"shooting_id": shooting.id})
    return ApiResponse(202, serialize_batch(results), {"Location": f"/api/v1/generations/?{query}"})


list_looks = Page(LOOKS, Permission.SHOOTINGS_READ, parent=Shooting, narrowed_by={"product_id": Product})


@requires(Permission.SHOOTINGS_WRITE)
def create_look(shooting_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Create a look with a pending shot for each shot type."""
    shooting = get_visible(Shooting, shooting_id, for_update=True)
    look = Look(
        owner_id=shooting.owner_id,
        organization_id=shooting.organization_id,
        shooting_id=shooting.id,
        shots=[],
        shot_type_links=[],
        product_links=[],
        guidelines_links=[],
    )
    _apply_look_body(look, body)
    current_session().add(look)
    current_session().flush()
    return created(look, LookSchema, f"/api/v1/shootings/{shooting.id}/looks/{look.id}")


@requires(Permission.SHOOTINGS_WRITE)
def create_looks(shooting_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Create a look for each of many products, all with the same other properties."""
    shooting = get_visible(Shooting, shooting_id, for_update=True)
    deduplicate_ids(body, "main_product_ids", "shot_type_ids", "guidelines_ids")
    check_references(
        shooting,
        body,
        main_product_ids=Product,
        subject_id=Subject,
        style_id=Style,
        shot_type_ids=ShotType,
        guidelines_ids=Guidelines,
    )
    product_ids, shot_type_ids = body.pop("main_product_ids"), body.pop("shot_type_ids")
    guidelines_ids = body.pop("guidelines_ids", [])
    looks = look_batches.create_looks(shooting, product_ids, shot_type_ids, guidelines_ids, body)
    return ApiResponse(200, {"data": serialize_many(looks, LookSchema)})


get_look = One(Look, LookSchema, Permission.SHOOTINGS_READ)


@requires(Permission.SHOOTINGS_WRITE)
def update_look(shooting_id: UUID, look_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a look; a change of its shot types adds and removes shots."""
    look = _get_locked_look(shooting_id, look_id)
    _apply_look_body(look, body)
    current_session().flush()
    return ok(look, LookSchema)


@requires(Permission.SHOOTINGS_WRITE)
def delete_look(shooting_id: UUID, look_id: UUID) -> ApiResponse:
    """Delete a look with its shots and predictions."""
    shootings.delete_look(_get_locked_look(shooting_id, look_id))
    return no_content()


def _get_locked_look(shooting_id: UUID, look_id: UUID) -> Look:
    return get_for_update(Look, look_id, LookSchema, LIST_OPTIONS, [Look.shooting_id == shooting_id])


def _apply_look_body(look: Look, body: dict[str, Any]) -> None:
    deduplicate_ids(body, "shot_type_ids", "product_ids", "guidelines_ids")
    check_references(
        look,
        body,
        main_product_id=Product,
        subject_id=Subject,
        style_id=Style,
        shot_type_ids=ShotType,
        product_ids=Product,
        guidelines_ids=Guidelines,
    )
    shootings.touch(look, body)
    if "shot_type_ids" in body:
        shootings.change_shot_types(look, body.pop("shot_type_ids"))
    apply_changes(look, body)


def _create_inline_guidelines(shooting: Shooting, body: dict[str, Any]) -> Guidelines:
    """Create guidelines in the tenant of a shooting."""
    guidelines = Guidelines(owner_id=shooting.owner_id, organization_id=shooting.organization_id)
    deduplicate_ids(body, "shot_type_ids", "subject_ids")
    check_references(
        guidelines,
        body,
        background_preset_id=BackgroundPreset,
        resolution_preset_id=ResolutionPreset,
        shot_type_ids=ShotType,
        subject_ids=Subject,
    )
    apply_changes(guidelines, body)
    insert_row(guidelines)
    return guidelines
