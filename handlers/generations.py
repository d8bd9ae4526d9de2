"""Generations: tasks that make pictures. They are asked for, watched, canceled and retried here."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import selectinload

from db.models.generations import Generation
from db.models.shootings import Shooting, Shot
from db.session import session
from db.tenancy import creation_scope, get_owned, list_scope, refer
from handlers.answers import Answer, event_stream, ok
from handlers.ordering import ordered
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.preparing import decodes_after
from handlers.references import SHOTS_OF_SHOOTING, find_picture, require_known
from handlers.schemas.generations import GenerationSchema
from studio.generation import check_order
from studio.lifecycle import request_cancel
from studio.orders import repeat_order
from studio.states import OPEN_GENERATION
from studio.watching import state_of

ASK_AGAIN_SECONDS = 1
WITH_PICTURES = [selectinload(Generation.predictions)]

GENERATIONS = Listing(
    Generation,
    GenerationSchema,
    filters={
        "shot_id": Generation.shot_id,
        "shooting_id": Generation.shot_id.in_(SHOTS_OF_SHOOTING),
        "status": Generation.status,
        "generation_strategy": Generation.generation_strategy,
    },
)


@requires(Permission.GENERATIONS_READ)
def list_generations(organization_id: UUID | None = None, **asked: Any) -> Answer:
    """The generations of one scope."""
    require_known({Shot: asked.get("shot_id"), Shooting: asked.get("shooting_id")})
    return GENERATIONS.page(asked, list_scope(organization_id))


def _may_order(body: dict[str, Any], organization_id: UUID | None = None, **_: Any) -> None:
    scope = creation_scope(organization_id)
    if body.get("shot_id") is not None:
        refer(Shot, body["shot_id"], scope)
        get_owned(Shot, body["shot_id"])


@requires(Permission.GENERATIONS_WRITE)
@decodes_after(_may_order, "product_image", "product2_image")
def create_generation(
    body: dict[str, Any], organization_id: UUID | None = None, validate_only: bool = False
) -> Answer:
    """Queue a generation; it reports progress and result."""
    scope = creation_scope(organization_id)
    shot = None
    if body.get("shot_id") is not None:
        refer(Shot, body["shot_id"], scope)
        shot = get_owned(Shot, body["shot_id"], for_update=True)
    return ordered(check_order(body, scope, shot, find_picture), validate_only)


@requires(Permission.GENERATIONS_READ)
def get_generation(generation_id: UUID) -> Answer:
    """One generation with its progress and its pictures."""
    generation = get_owned(Generation, generation_id, options=WITH_PICTURES)
    answer = ok(generation, GenerationSchema, watch=state_of(generation))
    if generation.status in OPEN_GENERATION:
        answer.headers["Retry-After"] = str(ASK_AGAIN_SECONDS)
    return answer


@requires(Permission.GENERATIONS_READ)
def stream_generation_events(generation_id: UUID) -> Answer:
    """What happens to one generation, while it happens."""
    return event_stream(state_of(get_owned(Generation, generation_id, options=WITH_PICTURES)))


@requires(Permission.GENERATIONS_WRITE)
def cancel_generation(generation_id: UUID) -> Answer:
    """Stop a generation: at once while it waits, at its next step while it runs."""
    generation = get_owned(Generation, generation_id, for_update=True, options=WITH_PICTURES)
    request_cancel(generation)
    session().flush()
    session().refresh(generation, ["queue_position"])
    return ok(generation, GenerationSchema)


@requires(Permission.GENERATIONS_WRITE)
def retry_generation(generation_id: UUID) -> Answer:
    """Queue a new generation with the frozen inputs of one that ended without pictures."""
    # Not locked: only what has ended can be repeated, and that changes no more.
    generation = get_owned(Generation, generation_id)
    shot = get_owned(Shot, generation.shot_id, for_update=True) if generation.shot_id else None
    return ordered(repeat_order(generation, shot))
