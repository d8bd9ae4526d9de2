"""Generations: tasks that make predictions. Clients create, watch, cancel and retry them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import selectinload

from db.caller import require_permission_in
from db.models.generations import Generation
from db.models.products import Product
from db.models.shootings import Shooting, Shot
from db.session import current_session
from db.tenancy import get_reference, get_visible
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.reads import Reading, VisibleRows
from handlers.common.references import (
    OF_PRODUCTS,
    SHOTS_OF_SHOOTING,
    resolve_image,
)
from handlers.common.responses import ApiResponse, accepted, event_stream, ok, serialize
from handlers.pipeline.prechecks import prefetches_images
from handlers.schemas.generations import EstimateSchema, GenerationSchema
from studio.generations import create, lifecycle
from studio.generations.inputs import resolve
from studio.generations.request import GenerationRequest
from studio.generations.snapshot import GenerationDraft, freeze
from studio.generations.watch import snapshot
from studio.state_machines import OPEN_GENERATION

RETRY_AFTER_SECONDS = 1
GENERATION_ROWS = VisibleRows(Generation, GenerationSchema)
PREDICTION_OPTIONS = [selectinload(Generation.predictions)]

GENERATIONS = ListQuery(
    Generation,
    GenerationSchema,
    filters={
        "shot_id": Generation.shot_id,
        "shooting_id": Generation.shot_id.in_(SHOTS_OF_SHOOTING),
        "status": Generation.status,
        "generation_strategy": Generation.generation_strategy,
        "products": OF_PRODUCTS["generations"],
    },
)


list_generations = Page(
    GENERATIONS,
    Permission.GENERATIONS_READ,
    narrowed_by={"shot_id": Shot, "shooting_id": Shooting, "product_id": Product},
)


def _precheck_generation(body: dict[str, Any], organization_id: UUID | None = None, **_: Any) -> None:
    require_permission_in(organization_id)
    if body.get("shot_id") is not None:
        get_reference(Shot, body["shot_id"], organization_id)
        get_visible(Shot, body["shot_id"])


@requires(Permission.GENERATIONS_WRITE)
@prefetches_images(_precheck_generation, "product_image", "product2_image")
def create_generation(
    body: dict[str, Any], organization_id: UUID | None = None, validate_only: bool = False
) -> ApiResponse:
    """Queue a generation."""
    require_permission_in(organization_id)
    request = GenerationRequest.from_body(body)
    shot = None
    if request.shot_id is not None:
        get_reference(Shot, request.shot_id, organization_id)
        shot = get_visible(Shot, request.shot_id, for_update=True)
    owner_id = shot.owner_id if shot is not None else None
    product_media = resolve_image(request.product_image, organization_id, owner_id)
    # Stored and checked like the first photo, although no provider renders a second product yet.
    resolve_image(request.product2_image, organization_id, owner_id)
    return generation_response(freeze(resolve(request, organization_id, shot, product_media)), validate_only)


@requires(Permission.GENERATIONS_READ)
def get_generation(generation_id: UUID) -> Reading[ApiResponse]:
    """Return a generation with its progress and predictions."""
    generation = yield from GENERATION_ROWS.get(generation_id)
    response = ok(generation, GenerationSchema, watched=snapshot(generation))
    if generation.status in OPEN_GENERATION:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


@requires(Permission.GENERATIONS_READ)
def stream_generation_events(generation_id: UUID) -> Reading[ApiResponse]:
    """Stream the events of a generation."""
    return event_stream(snapshot((yield from GENERATION_ROWS.get(generation_id))))


@requires(Permission.GENERATIONS_WRITE)
def cancel_generation(generation_id: UUID) -> ApiResponse:
    """Cancel a generation: immediately while it is queued, at its next step while it runs."""
    generation = get_visible(Generation, generation_id, for_update=True, options=PREDICTION_OPTIONS)
    lifecycle.cancel_generation(generation)
    current_session().flush()
    current_session().refresh(generation, ["queue_position", "start_interval"])
    return ok(generation, GenerationSchema)


@requires(Permission.GENERATIONS_WRITE)
def retry_generation(generation_id: UUID) -> ApiResponse:
    """Queue a new generation with the inputs of one that ended without predictions."""
    # Not locked: only what has ended can be repeated, and that changes no more.
    generation = get_visible(Generation, generation_id)
    shot = get_visible(Shot, generation.shot_id, for_update=True) if generation.shot_id else None
    return generation_response(create.retry_generation(generation, shot))


def generation_response(draft: GenerationDraft, validate_only: bool = False) -> ApiResponse:
    """Create the generation and return 202 with it; with `validate_only`, return 200 with its cost."""
    if validate_only:
        return ApiResponse(200, serialize(create.estimate_generation(draft), EstimateSchema))
    generation = create.create_generation(draft)
    current_session().refresh(generation, ["queue_position", "start_interval", "product"])
    location = f"/api/v1/generations/{generation.id}"
    return accepted(generation, GenerationSchema, location, watched=snapshot(generation))
