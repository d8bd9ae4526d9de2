"""Generations: tasks that make pictures. They are asked for here and watched until they are done."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import selectinload

from db.models.generations import Generation
from db.models.shootings import Shot
from db.session import session
from db.tenancy import creation_scope, get_owned, listed, refer
from handlers.answers import Answer, accepted, ok
from handlers.paging import page
from handlers.permissions import Permission, requires
from handlers.references import find_picture, require_known
from handlers.schemas.generations import GenerationSchema
from studio.generation import request_generation

WITH_PICTURES = [selectinload(Generation.predictions)]


@requires(Permission.GENERATIONS_READ)
def list_generations(
    organization_id: UUID | None = None,
    shot_id: UUID | None = None,
    status: str | None = None,
    generation_strategy: str | None = None,
    **listing: Any,
) -> Answer:
    """The generations of one scope."""
    require_known({Shot: shot_id})
    filters = {
        Generation.shot_id: shot_id,
        Generation.status: status,
        Generation.generation_strategy: generation_strategy,
    }
    given = [column == value for column, value in filters.items() if value is not None]
    query = listed(Generation, organization_id).where(*given)
    return page(query, Generation, GenerationSchema, listing, filters=len(given), options=WITH_PICTURES)


@requires(Permission.GENERATIONS_WRITE)
def create_generation(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Queue a generation; it reports progress and result."""
    scope = creation_scope(organization_id)
    shot = None
    if body.get("shot_id") is not None:
        refer(Shot, body["shot_id"], scope)
        shot = get_owned(Shot, body["shot_id"], for_update=True)
    generation = request_generation(body, scope, shot, find_picture)
    session().refresh(generation, ["queue_position", "predictions"])
    return accepted(generation, GenerationSchema, f"/api/v1/generations/{generation.id}")


@requires(Permission.GENERATIONS_READ)
def get_generation(generation_id: UUID) -> Answer:
    """One generation with its progress and its pictures."""
    return ok(get_owned(Generation, generation_id, options=WITH_PICTURES), GenerationSchema)
