"""Create generations: charge the credits, insert the row and take the shot, in the caller's transaction.

This is the only place that creates generations. It checks credits, the limit of open generations and the
state of the shot; `snapshot.py` has checked the inputs before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from db.base import new_id, utc_now
from db.caller import current_caller
from db.errors import Conflict, InvalidTransition
from db.models.generations import Generation, Prediction
from db.models.media import MediaResource
from db.models.shootings import Shot
from db.models.subscriptions import Subscription
from db.row_counts.queries import sum_stored_counts
from db.session import after_commit, current_session, rollback_and_continue
from studio.billing import billing
from studio.billing.storage import require_storage
from studio.generations.availability import Tenant, require_available_inputs
from studio.generations.inputs import resolve
from studio.generations.request import GenerationRequest
from studio.generations.snapshot import GenerationDraft, freeze
from studio.infrastructure.pubsub import GENERATIONS
from studio.infrastructure.telemetry.context import current_traceparent
from studio.shootings.shots import require_next_status
from studio.state_machines import OPEN_GENERATION, RETRYABLE_GENERATION


class QueueFull(Conflict):
    """The tenant has as many open generations as the plan allows."""

    code = "queue_full"


@dataclass(frozen=True)
class Estimate:
    """What a request would create and cost; `credits_remaining` is the balance before."""

    cost_credits: int
    credits_remaining: int
    model_id: UUID | None
    width: int
    height: int
    batch_size: int


def request_generation(
    request: GenerationRequest,
    organization_id: UUID | None,
    shot: Shot | None = None,
    product_media: MediaResource | None = None,
) -> Generation:
    """Resolve, freeze and create the generation of a request.

    Args and errors are those of `resolve`, `freeze` and `create_generation`.
    """
    return create_generation(freeze(resolve(request, organization_id, shot, product_media)))


def create_generation(draft: GenerationDraft) -> Generation:
    """Create a pending generation, charge its credits and mark its shot as generating.

    Raises:
        OutOfCredits: The subscription is not active or has too few credits.
        StorageFull: The storage of the plan is used up.
        QueueFull: The tenant has as many open generations as the plan of the subscription allows.
        NotAvailable: Inputs of an earlier generation are archived or not public any more.
        ShotBusy, InvalidTransition: The shot cannot be generated in its state.
    """
    if draft.retry_of_id is not None or draft.source_prediction_id is not None:
        # `resolve` has checked all inputs but those that were frozen for the earlier generation.
        require_available_inputs(Tenant(draft.organization_id, draft.owner_id), draft.inputs)
    shot = draft.shot
    shot_status = shot.status if shot is not None else None
    next_status = require_next_status(shot, "generate") if shot is not None else None
    generation_id = new_id()
    charge = billing.charge(draft.organization_id, draft.owner_id, draft.cost_credits, generation_id)
    # After the charge, which locks the subscription: two requests cannot both take the last place.
    _require_capacity(draft, charge)
    require_storage(draft.organization_id, draft.owner_id)
    seconds = draft.deadline_seconds
    generation = Generation(
        id=generation_id,
        owner_id=draft.owner_id,
        organization_id=draft.organization_id,
        shot_id=shot.id if shot is not None else None,
        model_id=draft.model_id,
        source_prediction_id=draft.source_prediction_id,
        retry_of_id=draft.retry_of_id,
        subscription_id=charge.subscription_id,
        requested_by_id=current_caller().user_id,
        api_key_id=current_caller().api_key_id,
        product_id=_find_product_id(draft),
        generation_type=draft.generation_type,
        generation_strategy=draft.generation_strategy,
        batch_size=draft.batch_size,
        seed=draft.seed,
        # With the status that the shot returns to if the generation does not complete.
        inputs={**draft.inputs, "shot_status": shot_status},
        priority=charge.plan.priority,
        cost_credits=draft.cost_credits,
        deadline_at=utc_now() + timedelta(seconds=seconds) if seconds is not None else None,
        trace_context=current_traceparent(),
        predictions=[],
    )
    current_session().add(generation)
    current_session().flush()
    if shot is not None and next_status is not None:
        shot.status, shot.generation_id = next_status, generation.id
        current_session().flush()
    after_commit(GENERATIONS.notify)
    return generation


def estimate_generation(draft: GenerationDraft) -> Estimate:
    """Return the cost of a draft: create the generation, then roll back all that the transaction did.

    Raises:
        Conflict: The errors of `create_generation`.
    """
    subscription_id = create_generation(draft).subscription_id
    rollback_and_continue()
    subscription = (
        current_session().scalars(select(Subscription).where(Subscription.id == subscription_id)).one()
    )
    return Estimate(
        cost_credits=draft.cost_credits,
        credits_remaining=subscription.credits_remaining,
        model_id=draft.model_id,
        width=draft.inputs["scene"]["width"],
        height=draft.inputs["scene"]["height"],
        batch_size=draft.batch_size,
    )


def retry_generation(generation: Generation, shot: Shot | None) -> GenerationDraft:
    """Return a draft with the frozen inputs and the seed of a generation that ended without predictions.

    Args:
        generation: The generation to repeat.
        shot: Its shot, locked.

    Raises:
        InvalidTransition: The generation is still open, or it has completed.
    """
    if generation.status not in RETRYABLE_GENERATION:
        raise InvalidTransition(
            f"Cannot retry a generation in status `{generation.status}`: only failed, canceled and expired"
            " ones can be retried",
            allowed_transitions=[],
        )
    is_personal = generation.organization_id is None
    return GenerationDraft(
        organization_id=generation.organization_id,
        owner_id=generation.owner_id if is_personal else current_caller().user_id,
        shot=shot,
        model_id=generation.model_id,
        source_prediction_id=generation.source_prediction_id,
        generation_type=generation.generation_type,
        generation_strategy=generation.generation_strategy,
        batch_size=generation.batch_size,
        seed=generation.seed,
        # Reserved ids of predictions belong to the row that they are reserved for.
        inputs={name: value for name, value in generation.inputs.items() if name != "prediction_ids"},
        retry_of_id=generation.id,
    )


def _require_capacity(draft: GenerationDraft, charge: billing.Charge) -> None:
    limit = charge.plan.max_open_generations
    # From the counter cache: counting 20,000 rows would take longer than creating the generation.
    tenant_id = draft.owner_id if draft.organization_id is None else draft.organization_id
    counted = sum_stored_counts(Generation, "status", OPEN_GENERATION, tenant_id)
    if (current_session().scalar(counted) or 0) >= limit:
        raise QueueFull(
            f"At most {limit:,} generations may be open at a time with the plan {charge.tier}", limit=limit
        )


def _find_product_id(draft: GenerationDraft) -> UUID | None:
    """Return the product that a generation shows: the requested one, or that of the image it starts from."""
    requested = draft.inputs.get("asked", {}).get("product_id")
    if requested is not None:
        return UUID(requested)
    if draft.source_prediction_id is None:
        return None
    # unscoped: the source was resolved for the caller
    source = select(Generation.product_id).join(Prediction, Prediction.generation_id == Generation.id)
    product_id: UUID | None = current_session().scalar(
        source.where(Prediction.id == draft.source_prediction_id)
    )
    return product_id
