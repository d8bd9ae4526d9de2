"""Ordering pictures for all pending shots of a shooting at once: one result a shot, none undoes another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.errors import Conflict, OutOfCredits
from db.models.shootings import Shooting, Shot
from db.session import session
from db.tenancy import owned
from studio.generation import request_generation
from studio.generation_inputs import FindMedia
from studio.orders import QueueFull

MAX_SHOTS = 1_000


@dataclass(frozen=True)
class ShotOrdered:
    """What became of one shot: a generation that costs something, or the reason why there is none."""

    shot_id: UUID
    generation_id: UUID | None
    cost_credits: int
    error: Conflict | None


def request_generations(
    shooting: Shooting, asked: Mapping[str, Any], find_media: FindMedia
) -> list[ShotOrdered]:
    """Order the same for each pending shot of a locked shooting, the oldest first, at most MAX_SHOTS.

    A shot that is refused stays as it was. NotFound, and nothing ordered, when the order names what is not
    there.
    """
    pending = owned(Shot).where(Shot.shooting_id == shooting.id, Shot.status == "pending")
    # Locked in the order of ids, as by everybody who locks several: two requests cannot cross.
    locked = pending.order_by(Shot.id).limit(MAX_SHOTS).with_for_update(of=Shot)
    results: list[ShotOrdered] = []
    exhausted: Conflict | None = None
    for shot in session().scalars(locked.execution_options(populate_existing=True)).all():
        result = _refused(shot, exhausted) if exhausted else _request(shot, asked, find_media)
        if isinstance(result.error, OutOfCredits | QueueFull):
            # Every shot costs the same: what is used up for one is used up for all that follow.
            exhausted = result.error
        results.append(result)
    return results


def _request(shot: Shot, asked: Mapping[str, Any], find_media: FindMedia) -> ShotOrdered:
    order = {**asked, "shot_id": shot.id}
    try:
        with session().begin_nested():
            generation = request_generation(order, shot.organization_id, shot, find_media)
    except Conflict as refusal:
        return _refused(shot, refusal)
    return ShotOrdered(shot.id, generation.id, generation.cost_credits, None)


def _refused(shot: Shot, refusal: Conflict) -> ShotOrdered:
    return ShotOrdered(shot.id, None, 0, refusal)
