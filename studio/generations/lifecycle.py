"""The life of a generation: the one place where its state changes, with all that hangs on it.

Who moves a generation has locked its row. A move counts as a revision, keeps the times, settles the shot that
waits, and returns credits where nothing was made for them. Knows no worker and no HTTP.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from sqlalchemy import and_, select

from db.base import utc_now
from db.errors import InvalidTransition
from db.models.generations import Generation, GenerationStatus
from db.models.shootings import Shot
from db.session import after_commit, current_session
from studio import billing, pubsub
from studio.state_machines import GENERATION_STATES, next_shot_status
from studio.telemetry.metrics import count_generation
from studio.webhooks.outbox import publish

logger = logging.getLogger(__name__)

EXPIRED_ERROR = {
    "category": "expired",
    "message": "The deadline passed before the pictures were made; the credits were returned",
    "retryable": True,
}


def transition(generation: Generation, status: str, error: dict[str, Any] | None = None) -> None:
    """Move a locked generation to the next state; InvalidTransition when the table has no such step."""
    if status not in GENERATION_STATES[generation.status]:
        raise InvalidTransition(f"A generation that is {generation.status} cannot become {status}")
    stopped_at_work = generation.status == GenerationStatus.CANCELING
    generation.status = status
    generation.revision += 1
    after_commit(pubsub.CHANGES.notify)
    if status == GenerationStatus.RUNNING:
        generation.started_at = generation.started_at or utc_now()
    if status == GenerationStatus.PENDING:
        generation.progress = 0
    if status == GenerationStatus.COMPLETED:
        generation.progress = 100
    if status not in (GenerationStatus.RUNNING, GenerationStatus.CANCELING):
        generation.lease_owner = generation.lease_expires_at = None
    if not GENERATION_STATES[status]:
        generation.completed_at = utc_now()
        generation.error = error
        _update_shot(generation)
        if status != GenerationStatus.COMPLETED and not stopped_at_work:
            _refund_credits(generation)
        _emit_telemetry(generation)
        path = f"/api/v1/generations/{generation.id}"
        publish(f"generation.{status}", generation, status, path, shot_id=generation.shot_id)


def cancel_generation(generation: Generation) -> None:
    """Stop a locked generation: at once while it waits, at its next step while it runs.

    Cancelling what is canceled or being canceled changes nothing; what ended otherwise is an
    InvalidTransition.
    """
    if generation.status in (GenerationStatus.CANCELING, GenerationStatus.CANCELED):
        return
    waits = generation.status == GenerationStatus.PENDING
    generation.cancel_requested_at = utc_now()
    if generation.lease_owner is None:
        # Made elsewhere and watched by nobody at the moment: due at once, to be canceled there.
        generation.lease_expires_at = utc_now()
        after_commit(pubsub.notify_workers)
    transition(generation, GenerationStatus.CANCELED if waits else GenerationStatus.CANCELING)


def _emit_telemetry(generation: Generation) -> None:
    """Let those who watch from outside know, once it is certain."""
    began, ended = generation.started_at, generation.completed_at
    seconds = (ended - began).total_seconds() if began and ended else None
    after_commit(partial(count_generation, generation.status, seconds))
    fields: dict[str, Any] = {"generation_id": str(generation.id), "status": generation.status}
    if generation.organization_id is not None:
        fields["org_id"] = str(generation.organization_id)
    if seconds is not None:
        fields["duration_ms"] = round(seconds * 1000)
    words = "generation %s is %s, at attempt %s"
    after_commit(
        partial(logger.info, words, generation.id, generation.status, generation.attempts, extra=fields)
    )


def _update_shot(generation: Generation) -> None:
    """Bring the shot that waits for this generation into review, or back to where it was."""
    if generation.shot_id is None:
        return
    waiting = and_(Shot.id == generation.shot_id, Shot.status == "generating")
    shot = current_session().scalar(
        select(Shot).where(waiting).with_for_update(of=Shot)
    )  # unscoped: its own shot
    if shot is None:
        return
    if generation.status == GenerationStatus.COMPLETED:
        shot.status = next_shot_status(shot.status, "finish")
        shot.rejection_reason = shot.revision_note = None
    else:
        shot.status = generation.inputs.get("shot_status") or "pending"


def _refund_credits(generation: Generation) -> None:
    if generation.subscription_id is not None:
        billing.refund(generation.subscription_id, generation.cost_credits, generation.id)
    generation.cost_credits = 0
