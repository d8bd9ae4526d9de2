"""Shootings and their looks. A look makes the shots; see `studio/shootings.py` for the rules."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy.orm import selectinload

from db.errors import ScopeMismatch
from db.inserting import insert_row
from db.models.brands import Brand
from db.models.guidelines import Guidelines
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.products import Product
from db.models.shootings import Look, Shooting
from db.models.styles import Style
from db.models.subjects import Subject
from db.session import session, undo
from db.tenancy import get_owned, list_scope, readable_scope
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, get_for_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.references import find_picture, refer_all, require_known, scope_of_new
from handlers.schemas.shootings import LookSchema, ShootingSchema, present_batch
from studio import shootings as studio
from studio.batches import request_generations

WITH_LISTS = [
    selectinload(Look.shots),
    selectinload(Look.shot_type_links),
    selectinload(Look.product_links),
    selectinload(Look.guidelines_links),
]
LISTS = ("shot_type_ids", "product_ids", "guidelines_ids")
SHOOTINGS = Listing(
    Shooting,
    ShootingSchema,
    filters={"brand_id": Shooting.brand_id, "phase": Shooting.phase, "archived": Shooting.archived},
    searched=(Shooting.name,),
)
LOOKS = Listing(Look, LookSchema, within={"shooting_id": Look.shooting_id})


@requires(Permission.SHOOTINGS_READ)
def list_shootings(organization_id: UUID | None = None, **asked: Any) -> Answer:
    """The shootings of one scope."""
    require_known({Brand: asked.get("brand_id")})
    return SHOOTINGS.page(asked, list_scope(organization_id))


@requires(Permission.SHOOTINGS_WRITE)
def create_shooting(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Make a shooting, with inline guidelines in the same transaction."""
    shooting = Shooting(**scope_of_new(organization_id))
    if body.pop("organization_id", None) not in (None, organization_id):
        raise ScopeMismatch("organization_id differs from the query")
    inline = body.pop("default_guidelines", None)
    refer_all(shooting, body, brand_id=Brand, default_guidelines_id=Guidelines)
    apply_changes(shooting, body)
    if inline is not None:
        shooting.default_guidelines_id = _inline_guidelines(shooting, inline).id
    insert_row(shooting)
    return created(shooting, ShootingSchema, f"/api/v1/shootings/{shooting.id}")


@requires(Permission.SHOOTINGS_READ)
def get_shooting(shooting_id: UUID) -> Answer:
    """One shooting."""
    return ok(get_owned(Shooting, shooting_id), ShootingSchema)


@requires(Permission.SHOOTINGS_WRITE)
def update_shooting(shooting_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names; the phase moves by the table."""
    shooting = get_for_change(Shooting, shooting_id, ShootingSchema)
    refer_all(shooting, body, brand_id=Brand, default_guidelines_id=Guidelines)
    if "phase" in body:
        studio.move_shooting(shooting, body.pop("phase"))
    apply_changes(shooting, body)
    session().flush()
    return ok(shooting, ShootingSchema)


@requires(Permission.SHOOTINGS_WRITE)
def delete_shooting(shooting_id: UUID) -> Answer:
    """Remove the shooting with its looks, shots and pictures."""
    studio.delete_shooting_rows(get_for_change(Shooting, shooting_id, ShootingSchema))
    return no_content()


@requires(Permission.SHOTS_GENERATE)
def generate_shooting(shooting_id: UUID, body: dict[str, Any], validate_only: bool = False) -> Answer:
    """Queue a generation for each pending shot, or only say what that would cost."""
    shooting = get_owned(Shooting, shooting_id, for_update=True)
    order = {**body, "batch_size": body["num_predictions"]}
    del order["num_predictions"]
    results = request_generations(shooting, order, find_picture)
    if validate_only:
        undo()
        return Answer(200, present_batch(results, tried=True))
    scope = {"organization_id": shooting.organization_id} if shooting.organization_id else {}
    query = urlencode(scope | {"shooting_id": shooting.id})
    return Answer(202, present_batch(results), {"Location": f"/api/v1/generations/?{query}"})


@requires(Permission.SHOOTINGS_READ)
def list_looks(shooting_id: UUID, **asked: Any) -> Answer:
    """The looks of one shooting."""
    asked["shooting_id"] = get_owned(Shooting, shooting_id).id
    return LOOKS.page(asked, readable_scope())


@requires(Permission.SHOOTINGS_WRITE)
def create_look(shooting_id: UUID, body: dict[str, Any]) -> Answer:
    """Add a look and one pending shot for each shot type."""
    shooting = get_owned(Shooting, shooting_id, for_update=True)
    look = Look(
        owner_id=shooting.owner_id,
        organization_id=shooting.organization_id,
        shooting_id=shooting.id,
        shots=[],
        shot_type_links=[],
        product_links=[],
        guidelines_links=[],
    )
    _change_look(look, body)
    session().add(look)
    session().flush()
    return created(look, LookSchema, f"/api/v1/shootings/{shooting.id}/looks/{look.id}")


@requires(Permission.SHOOTINGS_READ)
def get_look(shooting_id: UUID, look_id: UUID) -> Answer:
    """One look with its shots in brief."""
    in_path = [Look.shooting_id == shooting_id]
    return ok(get_owned(Look, look_id, options=WITH_LISTS, where=in_path), LookSchema)


@requires(Permission.SHOOTINGS_WRITE)
def update_look(shooting_id: UUID, look_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names; shot types add and remove shots."""
    look = _locked_look(shooting_id, look_id)
    _change_look(look, body)
    session().flush()
    return ok(look, LookSchema)


@requires(Permission.SHOOTINGS_WRITE)
def delete_look(shooting_id: UUID, look_id: UUID) -> Answer:
    """Remove the look with its shots and pictures."""
    studio.delete_look_rows(_locked_look(shooting_id, look_id))
    return no_content()


def _locked_look(shooting_id: UUID, look_id: UUID) -> Look:
    return get_for_change(Look, look_id, LookSchema, WITH_LISTS, [Look.shooting_id == shooting_id])


def _change_look(look: Look, body: dict[str, Any]) -> None:
    # The schema sees two spellings of one id as different.
    body |= {name: list(dict.fromkeys(body[name])) for name in LISTS if name in body}
    refer_all(
        look,
        body,
        main_product_id=Product,
        subject_id=Subject,
        style_id=Style,
        shot_type_ids=ShotType,
        product_ids=Product,
        guidelines_ids=Guidelines,
    )
    studio.touch(look, body)
    if "shot_type_ids" in body:
        studio.change_shot_types(look, body.pop("shot_type_ids"))
    apply_changes(look, body)


def _inline_guidelines(shooting: Shooting, body: dict[str, Any]) -> Guidelines:
    """New guidelines of the shooting's scope."""
    guidelines = Guidelines(owner_id=shooting.owner_id, organization_id=shooting.organization_id)
    body |= {
        name: list(dict.fromkeys(body[name])) for name in ("shot_type_ids", "subject_ids") if name in body
    }
    refer_all(
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
