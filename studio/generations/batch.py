"""Create a generation for each pending shot of a shooting: one result per shot, independent of the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from db.errors import Conflict, OutOfCredits
from db.models.shootings import Shooting, Shot
from db.session import current_session
from db.tenancy import select_visible
from studio.generations.create import QueueFull, request_generation
from studio.generations.request import GenerationRequest

MAX_SHOTS = 1_000


@dataclass(frozen=True)
class ShotResult:
    """The result of one shot: a generation and its cost, or the error that prevented it."""

    shot_id: UUID
    generation_id: UUID | None = None
    cost_credits: int = 0
    error: Conflict | None = None


def generate_shooting(shooting: Shooting, request: GenerationRequest) -> list[ShotResult]:
    """Create the same generation for each pending shot of a locked shooting, at most `MAX_SHOTS`.

    A rejected shot keeps its state.

    Raises:
        NotFound: The request refers to a row that does not exist; no generation is created.
    """
    pending = select_visible(Shot).where(Shot.shooting_id == shooting.id, Shot.status == "pending")
    # In the order of ids, like every lock of several shots: two requests cannot deadlock.
    locked = pending.order_by(Shot.id).limit(MAX_SHOTS).with_for_update(of=Shot)
    results: list[ShotResult] = []
    exhausted: Conflict | None = None
    for shot in current_session().scalars(locked.execution_options(populate_existing=True)).all():
        result = ShotResult(shot.id, error=exhausted) if exhausted else _generate_shot(shot, request)
        if isinstance(result.error, OutOfCredits | QueueFull):
            # All shots cost the same: no later shot can succeed either.
            exhausted = result.error
        results.append(result)
    return results


def _generate_shot(shot: Shot, request: GenerationRequest) -> ShotResult:
    try:
        with current_session().begin_nested():
            generation = request_generation(replace(request, shot_id=shot.id), shot.organization_id, shot)
    except Conflict as error:
        return ShotResult(shot.id, error=error)
    return ShotResult(shot.id, generation.id, generation.cost_credits)
