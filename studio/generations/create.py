"""Placing a checked order: the one place where a generation comes into being, is paid for and takes its shot.

What may be ordered is checked in `generation.py`; here it is asked whether there is credit, room and a free
shot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from db.base import new_id, utc_now
from db.errors import Conflict, InvalidTransition
from db.models.generations import Generation
from db.models.shootings import Shot
from db.models.subscriptions import Subscription
from db.session import after_commit, current_session, rollback_and_continue
from db.tenancy import current_caller
from studio import billing
from studio.pubsub import notify_workers
from studio.state_machines import OPEN_GENERATION, RETRYABLE_GENERATION, next_shot_status
from studio.telemetry.context import current_traceparent

MAX_OPEN_GENERATIONS = 50
_RETRIED_COLUMNS = (
    "model_id", "source_prediction_id", "generation_type", "generation_strategy", "batch_size", "seed",
)  # fmt: skip


class QueueFull(Conflict):
    """The scope has as many open generations as one may have."""

    code = "queue_full"
    default_detail = f"At most {MAX_OPEN_GENERATIONS} generations may be open at a time"


@dataclass(frozen=True)
class GenerationDraft:
    """A checked order of which nothing is written yet. `columns` are the new row's; the shot is locked."""

    organization_id: UUID | None
    owner_id: UUID
    shot: Shot | None
    columns: Mapping[str, Any]

    @property
    def cost_credits(self) -> int:
        """What it costs: one credit a picture."""
        return int(self.columns["batch_size"])

    @property
    def deadline_seconds(self) -> int | None:
        """How long the pictures are waited for; None means for ever."""
        seconds: int | None = self.columns["inputs"].get("asked", {}).get("cancel_after_seconds")
        return seconds


@dataclass(frozen=True)
class Estimate:
    """What an order would make and cost; `credits_remaining` is what is left without it."""

    cost_credits: int
    credits_remaining: int
    model_id: UUID
    width: int
    height: int
    batch_size: int


def estimate_generation(draft: GenerationDraft) -> Estimate:
    """What placing the order would cost. It is placed and undone with all that the transaction did.

    Refused as `place_order`.
    """
    subscription_id = create_generation(draft).subscription_id
    rollback_and_continue()
    paying = current_session().scalars(select(Subscription).where(Subscription.id == subscription_id)).one()
    columns, scene = draft.columns, draft.columns["inputs"]["scene"]
    return Estimate(
        cost_credits=draft.cost_credits,
        credits_remaining=paying.credits_remaining,
        model_id=columns["model_id"],
        width=scene["width"],
        height=scene["height"],
        batch_size=columns["batch_size"],
    )


def create_generation(draft: GenerationDraft) -> Generation:
    """The new pending generation, paid for; its shot is generating.

    Refused with OutOfCredits, QueueFull, ShotBusy or InvalidTransition.
    """
    shot = draft.shot
    status_after = next_shot_status(shot.status, "generate") if shot is not None else None
    generation_id = new_id()
    payment = billing.charge(draft.organization_id, draft.owner_id, draft.cost_credits, generation_id)
    # After the charge, which locks the subscription: two requests cannot both be the fiftieth.
    _require_capacity(draft)
    seconds = draft.deadline_seconds
    generation = Generation(
        **draft.columns,
        id=generation_id,
        owner_id=draft.owner_id,
        organization_id=draft.organization_id,
        shot_id=shot.id if shot is not None else None,
        subscription_id=payment.subscription_id,
        priority=payment.priority,
        cost_credits=draft.cost_credits,
        deadline_at=utc_now() + timedelta(seconds=seconds) if seconds is not None else None,
        trace_context=current_traceparent(),
    )
    # Where the shot returns to when no pictures come of it.
    generation.inputs = {**generation.inputs, "shot_status": shot.status if shot is not None else None}
    current_session().add(generation)
    current_session().flush()
    if shot is not None and status_after is not None:
        shot.status, shot.generation_id = status_after, generation.id
        current_session().flush()
    after_commit(notify_workers)
    return generation


def retry_generation(generation: Generation, shot: Shot | None) -> GenerationDraft:
    """The order that a generation came of, its inputs and seed as frozen then; `shot` is its shot, locked.

    InvalidTransition while it is open, and when it was completed: its pictures are there.
    """
    if generation.status not in RETRYABLE_GENERATION:
        raise InvalidTransition(f"A generation that is {generation.status} cannot be retried")
    # Reserved ids of pictures belong to the row that they were reserved for.
    inputs = {name: value for name, value in generation.inputs.items() if name != "prediction_ids"}
    personal = generation.organization_id is None
    return GenerationDraft(
        organization_id=generation.organization_id,
        owner_id=generation.owner_id if personal else current_caller().user_id,
        shot=shot,
        columns={
            **{name: getattr(generation, name) for name in _RETRIED_COLUMNS},
            "inputs": inputs,
            "retry_of_id": generation.id,
        },
    )


def _require_capacity(draft: GenerationDraft) -> None:
    if draft.organization_id is not None:
        scope = Generation.organization_id == draft.organization_id
    else:
        scope = Generation.organization_id.is_(None) & (Generation.owner_id == draft.owner_id)
    # unscoped: counts the scope that the new row was allowed into
    counted = (
        select(func.count()).select_from(Generation).where(scope, Generation.status.in_(OPEN_GENERATION))
    )
    if (current_session().scalar(counted) or 0) >= MAX_OPEN_GENERATIONS:
        raise QueueFull()
