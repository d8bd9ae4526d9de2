"""Create a generation for each pending shot of a shooting: one result per shot, independent of the others."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from uuid import UUID

from db.errors import Conflict, NotAttempted, OutOfCredits
from db.models.shootings import Shooting, Shot
from db.session import current_session
from db.tenancy import select_visible
from studio.billing.storage import StorageFull
from studio.generations.create import QueueFull, create_generation
from studio.generations.inputs import StrategyNotSupported, resolve, sharing_rows
from studio.generations.request import GenerationRequest
from studio.generations.snapshot import freeze

MAX_SHOTS = 1_000
MAX_SECONDS = 5.0
"""The time that a batch works. It holds locks that other requests of the tenant wait for."""

_REJECTS_ALL = (OutOfCredits, QueueFull, StorageFull, StrategyNotSupported)
"""Errors that every later shot would get too: all shots have the same request and cost the same."""
_NOT_ATTEMPTED = "The batch reached its time limit before this shot: send the request again"


@dataclass(frozen=True)
class ShotResult:
    """The result of one shot: a generation and its cost, or the error that prevented it."""

    shot_id: UUID
    generation_id: UUID | None = None
    cost_credits: int = 0
    error: Conflict | None = None


def generate_shooting(shooting: Shooting, request: GenerationRequest) -> list[ShotResult]:
    """Create the same generation for each pending shot of a locked shooting, at most `MAX_SHOTS`.

    A rejected shot keeps its state. After `MAX_SECONDS` the remaining shots are rejected with `NotAttempted`.

    Raises:
        NotFound: The request refers to a row that does not exist; no generation is created.
    """
    pending = select_visible(Shot).where(Shot.shooting_id == shooting.id, Shot.status == "pending")
    # In the order of ids, like every lock of several shots: two requests cannot deadlock.
    locked = pending.order_by(Shot.id).limit(MAX_SHOTS).with_for_update(of=Shot)
    shots = current_session().scalars(locked.execution_options(populate_existing=True)).all()
    results: list[ShotResult] = []
    final_error: Conflict | None = None
    with sharing_rows(shots):
        # After the rows are loaded: each request attempts at least one shot, so repeated ones make progress.
        ends_at = time.monotonic() + MAX_SECONDS
        for shot in shots:
            if final_error is None and time.monotonic() >= ends_at:
                final_error = NotAttempted(_NOT_ATTEMPTED)
            result = ShotResult(shot.id, error=final_error) if final_error else _generate_shot(shot, request)
            if isinstance(result.error, _REJECTS_ALL):
                final_error = result.error
            results.append(result)
    return results


def _generate_shot(shot: Shot, request: GenerationRequest) -> ShotResult:
    try:
        draft = freeze(resolve(replace(request, shot_id=shot.id), shot.organization_id, shot))
        # Only this writes, so only this needs a savepoint. Most rejected shots do not get here.
        with current_session().begin_nested():
            generation = create_generation(draft)
    except Conflict as error:
        # The traceback keeps the frames and their objects: 26 per shot, until a garbage collection of 0.1 s.
        return ShotResult(shot.id, error=error.with_traceback(None))
    return ShotResult(shot.id, generation.id, generation.cost_credits)
