"""Shot types: the framing and view angle of images."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.models.presets import ShotType
from db.session import current_session
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.plain_writes import plain_write
from handlers.common.preconditions import apply_changes, get_for_update
from handlers.common.reads import One
from handlers.common.references import resolve_ownership
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.schemas.shot_types import ShotTypeSchema
from studio.catalog import archive
from studio.catalog.slugs import insert_with_slug
from studio.catalog.visibility import check_may_publish

SHOT_TYPES = ListQuery(ShotType, ShotTypeSchema, search_columns=(ShotType.name,))


list_shot_types = Page(SHOT_TYPES, Permission.SHOT_TYPES_READ)


@plain_write
@requires(Permission.SHOT_TYPES_WRITE)
def create_shot_type(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a shot type; the label defaults to the name, the slug to one made from it."""
    check_may_publish(body)
    shot_type = ShotType(**resolve_ownership(organization_id), label=body["name"])
    apply_changes(shot_type, body)
    insert_with_slug(shot_type, "shot-type")
    return created(shot_type, ShotTypeSchema, f"/api/v1/shot-types/{shot_type.id}")


get_shot_type = One(ShotType, ShotTypeSchema, Permission.SHOT_TYPES_READ)


@plain_write
@requires(Permission.SHOT_TYPES_WRITE)
def update_shot_type(shot_type_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a shot type."""
    shot_type = get_for_update(ShotType, shot_type_id, ShotTypeSchema)
    check_may_publish(body, shot_type.public)
    apply_changes(shot_type, body)
    current_session().flush()
    return ok(shot_type, ShotTypeSchema)


@requires(Permission.SHOT_TYPES_WRITE)
def delete_shot_type(shot_type_id: UUID) -> ApiResponse:
    """Delete a shot type; one that only other tenants use is archived."""
    archive.delete_shot_type(get_for_update(ShotType, shot_type_id, ShotTypeSchema))
    return no_content()
