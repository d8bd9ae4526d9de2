"""Shootings and looks: the phases, the shots that looks make, and what may be deleted when.

A look has exactly one shot for each of its shot types; nothing else makes or removes shots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import utc_now
from db.errors import Conflict, InvalidTransition
from db.models.generations import Generation, Prediction
from db.models.shootings import Look, Shooting, Shot
from db.session import current_session
from studio.state_machines import OPEN_GENERATION, require_phase_transition
from studio.webhooks.outbox import publish


class GenerationRunning(Conflict):
    """A generation still works for one of the shots that would go."""

    code = "generation_running"
    default_detail = "A generation is running for one of the shots"


class ShotHasPredictions(Conflict):
    """A shot type was left out although something was generated for its shot."""

    code = "shot_has_predictions"
    default_detail = "Something was generated for a shot that would be removed"


def aggregate_shot_status(shooting: Shooting) -> str:
    """The shots of a shooting rolled up: empty, pending, in_progress, in_review or approved.

    Exported shots count as approved.
    """
    if shooting.shots_count == 0:
        return "empty"
    if shooting.shots_approved_count == shooting.shots_count:
        return "approved"
    if shooting.shots_in_review_count > 0:
        return "in_review"
    return "pending" if shooting.shots_pending_count == shooting.shots_count else "in_progress"


def change_phase(shooting: Shooting, phase: str) -> None:
    """Bring a shooting into the next phase.

    InvalidTransition where the table of phases has no such step, and for PRODUCTION while a required test
    shooting has not been held.
    """
    require_phase_transition(shooting.phase, phase)
    if phase == "PRODUCTION" and shooting.require_test_shooting and not shooting.test_shooting_held:
        raise InvalidTransition("The required test shooting has not been held yet")
    shooting.test_shooting_held = shooting.test_shooting_held or phase == "TEST_SHOOTING"
    if shooting.phase != phase:
        shooting.phase = phase
        publish("shooting.phase_changed", shooting, phase, f"/api/v1/shootings/{shooting.id}")


def delete_shooting(shooting: Shooting) -> None:
    """Delete a locked shooting with its looks, shots and pictures; GenerationRunning while one runs."""
    _require_no_open_generation(Shot.shooting_id == shooting.id)
    current_session().delete(shooting)
    current_session().flush()


def add_shots(look: Look, shot_type_ids: Sequence[UUID]) -> None:
    """Give a look its shot types, in order, and one pending shot for each that has none yet."""
    look.shot_type_ids = list(shot_type_ids)
    present = {shot.shot_type_id for shot in look.shots}
    for shot_type_id in shot_type_ids:
        if shot_type_id not in present:
            look.shots.append(
                Shot(
                    owner_id=look.owner_id,
                    organization_id=look.organization_id,
                    shooting_id=look.shooting_id,
                    shot_type_id=shot_type_id,
                )
            )


def change_shot_types(look: Look, shot_type_ids: Sequence[UUID]) -> None:
    """Add shots for new shot types and remove those of shot types that are left out.

    ShotHasPredictions when something was, or is being, generated for a shot that would go. `look` is locked.
    """
    leaving = [shot for shot in look.shots if shot.shot_type_id not in shot_type_ids]
    if leaving:
        locked = _lock_shots(Shot.id.in_([shot.id for shot in leaving]))
        made = select(Prediction.id).where(
            Prediction.shot_id.in_([shot.id for shot in locked])
        )  # unscoped: its own
        if (
            any(shot.status == "generating" for shot in locked)
            or current_session().scalar(made.limit(1)) is not None
        ):
            raise ShotHasPredictions()
    for shot in leaving:
        look.shots.remove(shot)
    add_shots(look, shot_type_ids)


def delete_look(look: Look) -> None:
    """Delete a locked look with its shots and pictures; GenerationRunning while one runs."""
    _require_no_open_generation(Shot.look_id == look.id)
    current_session().delete(look)
    current_session().flush()


def touch(row: Look, changes: Mapping[str, Any]) -> None:
    """Count a change of a row's lists, which touches no column of it, as a change of the row."""
    if changes:
        row.updated_at = utc_now()


def _lock_shots(condition: Any) -> list[Shot]:
    # unscoped: the shots of a row that was loaded scoped. Locked in order, so that two requests cannot cross.
    query = select(Shot).where(condition).order_by(Shot.id).with_for_update(of=Shot)  # unscoped: see above
    return list(current_session().scalars(query.execution_options(populate_existing=True)))


def _require_no_open_generation(condition: Any) -> None:
    shots = _lock_shots(condition)
    open_ones = select(Generation.id).where(  # unscoped: the generations of these shots
        Generation.shot_id.in_([shot.id for shot in shots]), Generation.status.in_(OPEN_GENERATION)
    )
    if current_session().scalar(open_ones.limit(1)) is not None:
        raise GenerationRunning()
