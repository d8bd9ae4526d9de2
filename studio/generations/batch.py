"""Ordering pictures for all pending shots of a shooting at once: one result a shot, none undoes another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.errors import Conflict, OutOfCredits
from db.models.shootings import Shooting, Shot
from db.session import current_session
from db.tenancy import select_visible
from studio.generations.create import QueueFull
from studio.generations.inputs import ResolveImage
from studio.generations.request import request_generation

MAX_SHOTS = 1_000


@dataclass(frozen=True)
class ShotResult:
    """What became of one shot: a generation that costs something, or the reason why there is none."""

    shot_id: UUID
    generation_id: UUID | None
    cost_credits: int
    error: Conflict | None


def generate_shooting(
    shooting: Shooting, parameters: Mapping[str, Any], resolve_image: ResolveImage
) -> list[ShotResult]:
    """Order the same for each pending shot of a locked shooting, the oldest first, at most MAX_SHOTS.

    A shot that is refused stays as it was. NotFound, and nothing ordered, when the order names what is not
    there.
    """
    pending = select_visible(Shot).where(Shot.shooting_id == shooting.id, Shot.status == "pending")
    # Locked in the order of ids, as by everybody who locks several: two requests cannot cross.
    locked = pending.order_by(Shot.id).limit(MAX_SHOTS).with_for_update(of=Shot)
    results: list[ShotResult] = []
    exhausted: Conflict | None = None
    for shot in current_session().scalars(locked.execution_options(populate_existing=True)).all():
        result = (
            _rejected_result(shot, exhausted)
            if exhausted
            else _generate_shot(shot, parameters, resolve_image)
        )
        if isinstance(result.error, OutOfCredits | QueueFull):
            # Every shot costs the same: what is used up for one is used up for all that follow.
            exhausted = result.error
        results.append(result)
    return results


def _generate_shot(shot: Shot, parameters: Mapping[str, Any], resolve_image: ResolveImage) -> ShotResult:
    order = {**parameters, "shot_id": shot.id}
    try:
        with current_session().begin_nested():
            generation = request_generation(order, shot.organization_id, shot, resolve_image)
    except Conflict as refusal:
        return _rejected_result(shot, refusal)
    return ShotResult(shot.id, generation.id, generation.cost_credits, None)


def _rejected_result(shot: Shot, error: Conflict) -> ShotResult:
    return ShotResult(shot.id, None, 0, error)
