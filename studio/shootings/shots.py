"""Find the next status of a shot, and name the generation that prevents a change of it."""

from __future__ import annotations

from db.models.generations import Generation
from db.models.shootings import Shot
from db.queries.references import describe_conflict
from db.session import current_session
from db.tenancy import select_visible
from studio.state_machines import OPEN_GENERATION, ShotBusy, next_shot_status


def require_next_status(shot: Shot, action: str) -> str:
    """Return the status of a shot after an action.

    Raises:
        ShotBusy: A generation of the shot is running; the error has its id.
        InvalidTransition: The action is not allowed in the status of the shot.
    """
    try:
        return next_shot_status(shot.status, action)
    except ShotBusy as error:
        of_shot = Generation.shot_id == shot.id, Generation.status.in_(OPEN_GENERATION)
        running = select_visible(Generation).where(*of_shot).with_only_columns(Generation.id)
        ids = current_session().scalars(running.order_by(Generation.id)).all()
        conflicts = [describe_conflict("generation", ids)] if ids else []
        raise ShotBusy(conflicts_with=conflicts) from error
