"""Shot types: how pictures are framed and from where products are seen."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.models.presets import ShotType
from db.session import session
from db.tenancy import get_owned, list_scope
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, get_for_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.references import scope_of_new
from handlers.schemas.shot_types import ShotTypeSchema
from studio.publishing import check_public
from studio.slugs import add_with_slug

SHOT_TYPES = Listing(ShotType, ShotTypeSchema, searched=(ShotType.name,))


@requires(Permission.SHOT_TYPES_READ)
def list_shot_types(organization_id: UUID | None = None, include_public: bool = True, **asked: Any) -> Answer:
    """The shot types of one scope, public ones included unless they are not wanted."""
    return SHOT_TYPES.page(asked, list_scope(organization_id, include_public))


@requires(Permission.SHOT_TYPES_WRITE)
def create_shot_type(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Make a shot type; label and slug come from its name when they are left out."""
    check_public(body)
    shot_type = ShotType(**scope_of_new(organization_id), label=body["name"])
    apply_changes(shot_type, body)
    add_with_slug(shot_type, "shot-type")
    return created(shot_type, ShotTypeSchema, f"/api/v1/shot-types/{shot_type.id}")


@requires(Permission.SHOT_TYPES_READ)
def get_shot_type(shot_type_id: UUID) -> Answer:
    """One shot type."""
    return ok(get_owned(ShotType, shot_type_id), ShotTypeSchema)


@requires(Permission.SHOT_TYPES_WRITE)
def update_shot_type(shot_type_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names."""
    shot_type = get_for_change(ShotType, shot_type_id, ShotTypeSchema)
    check_public(body, shot_type.public)
    apply_changes(shot_type, body)
    session().flush()
    return ok(shot_type, ShotTypeSchema)


@requires(Permission.SHOT_TYPES_WRITE)
def delete_shot_type(shot_type_id: UUID) -> Answer:
    """Remove the shot type, unless something refers to it."""
    session().delete(get_for_change(ShotType, shot_type_id, ShotTypeSchema))
    session().flush()
    return no_content()
