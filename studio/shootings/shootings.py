"""Change the phases of shootings, create the shots of looks, and delete shootings and looks.

A look has exactly one shot for each of its shot types. No other module creates or deletes shots.
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
from db.queries.references import describe_conflict
from db.session import current_session
from studio.state_machines import OPEN_GENERATION, require_phase_transition
from studio.webhooks.events import emit_shooting_event


class GenerationRunning(Conflict):
    """The shots cannot be deleted: a generation of one of them is running."""

    code = "generation_running"
    default_detail = "A generation is running for one of the shots: wait for it or cancel it"


class ShotHasPredictions(Conflict):
    """A shot type cannot be removed: its shot has predictions or a running generation."""

    code = "shot_has_predictions"
    default_detail = "A shot that would be removed has predictions or a running generation"


def aggregate_shot_status(shooting: Shooting) -> str:
    """Return the combined status of a shooting's shots: empty, pending, in_progress, in_review or approved.

    Exported shots count as approved.
    """
    counts = shooting.shot_counts
    if counts.total == 0:
        return "empty"
    if counts.approved == counts.total:
        return "approved"
    if counts.in_review > 0:
        return "in_review"
    return "pending" if counts.pending == counts.total else "in_progress"


def change_phase(shooting: Shooting, phase: str) -> None:
    """Move a shooting to a phase.

    Raises:
        InvalidTransition: The table of phases has no such transition, or PRODUCTION requires a test
            shooting that has not been held.
    """
    require_phase_transition(shooting.phase, phase)
    if phase == "PRODUCTION" and shooting.require_test_shooting and not shooting.test_shooting_held:
        raise InvalidTransition("The required test shooting has not been held yet")
    shooting.test_shooting_held = shooting.test_shooting_held or phase == "TEST_SHOOTING"
    if shooting.phase != phase:
        shooting.phase = phase
        emit_shooting_event("shooting.phase_changed", shooting)


def delete_shooting(shooting: Shooting) -> None:
    """Delete a locked shooting with its looks, shots and predictions.

    Raises:
        GenerationRunning: A generation of one of the shots is running.
    """
    _require_no_open_generation(Shot.shooting_id == shooting.id)
    current_session().delete(shooting)
    current_session().flush()


def add_shots(look: Look, shot_type_ids: Sequence[UUID]) -> None:
    """Set the shot types of a look, in order, and add a pending shot for each shot type that has none."""
    look.shot_type_ids = list(shot_type_ids)
    existing = {shot.shot_type_id for shot in look.shots}
    for shot_type_id in shot_type_ids:
        if shot_type_id not in existing:
            look.shots.append(
                Shot(
                    owner_id=look.owner_id,
                    organization_id=look.organization_id,
                    shooting_id=look.shooting_id,
                    shot_type_id=shot_type_id,
                )
            )


def change_shot_types(look: Look, shot_type_ids: Sequence[UUID]) -> None:
    """Set the shot types of a locked look: add shots for new ones and delete the shots of removed ones.

    Raises:
        ShotHasPredictions: A shot that would be deleted has predictions or a running generation.
    """
    removed = [shot for shot in look.shots if shot.shot_type_id not in shot_type_ids]
    if removed:
        locked = _lock_shots(Shot.id.in_([shot.id for shot in removed]))
        is_generating = any(shot.status == "generating" for shot in locked)
        # unscoped: predictions of the look's own shots
        prediction = select(Prediction.id).where(Prediction.shot_id.in_([shot.id for shot in locked]))
        if is_generating or current_session().scalar(prediction.limit(1)) is not None:
            raise ShotHasPredictions()
    for shot in removed:
        look.shots.remove(shot)
    add_shots(look, shot_type_ids)


def delete_look(look: Look) -> None:
    """Delete a locked look with its shots and predictions.

    Raises:
        GenerationRunning: A generation of one of the shots is running.
    """
    _require_no_open_generation(Shot.look_id == look.id)
    current_session().delete(look)
    current_session().flush()


def touch(row: Look, changes: Mapping[str, Any]) -> None:
    """Update `updated_at` if there are changes. Changes of lists alone do not change a column of the row."""
    if changes:
        row.updated_at = utc_now()


def _lock_shots(condition: Any) -> list[Shot]:
    # unscoped: the shots of a row that was loaded for the caller. Locked in order of their ids, so that
    # parallel requests cannot deadlock.
    query = select(Shot).where(condition).order_by(Shot.id).with_for_update(of=Shot)  # unscoped: see above
    return list(current_session().scalars(query.execution_options(populate_existing=True)))


def _require_no_open_generation(condition: Any) -> None:
    shots = _lock_shots(condition)
    query = select(Generation.id).where(  # unscoped: the generations of these shots
        Generation.shot_id.in_([shot.id for shot in shots]), Generation.status.in_(OPEN_GENERATION)
    )
    running = current_session().scalars(query).all()
    if running:
        raise GenerationRunning(conflicts_with=[describe_conflict("generation", running)])
