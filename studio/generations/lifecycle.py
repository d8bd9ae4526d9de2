"""Change the status of a generation: the only place that does, with everything that follows from it.

The caller has locked the row. A transition increments the revision, sets the timestamps, updates the shot,
refunds credits and publishes webhooks. Knows no worker and no HTTP.
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
from studio.billing import billing
from studio.infrastructure import pubsub
from studio.infrastructure.telemetry.metrics import count_generation
from studio.state_machines import GENERATION_STATES, next_shot_status
from studio.webhooks.events import emit_generation_event

logger = logging.getLogger(__name__)

EXPIRED_ERROR = {
    "category": "expired",
    "message": "The deadline passed before the predictions were rendered; the credits were refunded",
    "retryable": True,
}


PERMISSION_LOST = {
    "category": "permission",
    "message": "The requester may not generate any more; the credits were refunded",
    "retryable": False,
}
PLAN_ENDED = {
    "category": "permission",
    "message": "The plan that paid for it has ended; the credits were refunded",
    "retryable": False,
}


def transition(generation: Generation, status: str, error: dict[str, Any] | None = None) -> None:
    """Move a locked generation to another status.

    Args:
        generation: The generation.
        status: The new status.
        error: The error to show, for a final status other than completed.

    Raises:
        InvalidTransition: The state machine does not allow the step.
    """
    if status not in GENERATION_STATES[generation.status]:
        raise InvalidTransition(f"Cannot change a generation from {generation.status} to {status}")
    was_rendering = generation.status == GenerationStatus.CANCELING
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
        # Canceled while a worker rendered it: that work is paid for.
        if status != GenerationStatus.COMPLETED and not was_rendering:
            _refund_credits(generation)
        _emit_telemetry(generation)
        emit_generation_event(f"generation.{status}", generation)


def cancel_generation(generation: Generation) -> None:
    """Cancel a locked generation: immediately while it is pending, at its next step while it runs.

    A generation that is canceled or being canceled does not change.

    Raises:
        InvalidTransition: The generation has completed, failed or expired.
    """
    if generation.status in (GenerationStatus.CANCELING, GenerationStatus.CANCELED):
        return
    is_pending = generation.status == GenerationStatus.PENDING
    generation.cancel_requested_at = utc_now()
    if generation.lease_owner is None:
        # A remote task that no worker polls at the moment: make it due, so that a worker cancels it there.
        generation.lease_expires_at = utc_now()
        after_commit(pubsub.GENERATIONS.notify)
    transition(generation, GenerationStatus.CANCELED if is_pending else GenerationStatus.CANCELING)


def _emit_telemetry(generation: Generation) -> None:
    """Count and log the final status after the commit."""
    started_at, completed_at = generation.started_at, generation.completed_at
    seconds = (completed_at - started_at).total_seconds() if started_at and completed_at else None
    after_commit(partial(count_generation, generation.status, seconds))
    fields: dict[str, Any] = {"generation_id": str(generation.id), "status": generation.status}
    if generation.organization_id is not None:
        fields["org_id"] = str(generation.organization_id)
    if seconds is not None:
        fields["duration_ms"] = round(seconds * 1000)
    message = "generation %s is %s, at attempt %s"
    after_commit(
        partial(logger.info, message, generation.id, generation.status, generation.attempts, extra=fields)
    )


def _update_shot(generation: Generation) -> None:
    """Move the shot of the generation into review, or back to its previous status."""
    if generation.shot_id is None:
        return
    generating = and_(Shot.id == generation.shot_id, Shot.status == "generating")
    # unscoped: the shot of the generation
    shot = current_session().scalar(select(Shot).where(generating).with_for_update(of=Shot))
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
