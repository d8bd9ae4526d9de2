"""The queue of generations: lease, renew, complete, fail and release them.

The rows of generations are the queue; `studio/leases.py` describes how workers own them. Transactions are
short, and none is open while images are rendered. `scheduling.py` chooses the next generation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import ColumnElement, and_, case, or_, select
from sqlalchemy.orm import Session

from db.base import new_id, utc_now
from db.models.generations import Generation, GenerationStatus, Prediction
from db.session import Database, after_commit
from studio import leases, pubsub
from studio.generations.lifecycle import EXPIRED_ERROR, transition
from studio.generations.worker.scheduling import (
    before_deadline,
    is_awaiting_poll,
    is_reclaimable,
    select_next,
)
from studio.media.ingest import ImageOrigin, store_image
from studio.media.storage import Storage, media_key
from studio.media.stored_image import StoredImage
from studio.providers.local import PROVIDER, RenderedImage
from studio.telemetry.context import parse_traceparent
from studio.telemetry.metrics import count_lease_recovery
from studio.telemetry.traces import Attributes, record_span, start_span

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
EXPIRE_BATCH_SIZE = 100
CLEANUP_GRACE = timedelta(seconds=60)
INTERNAL_ERROR = {
    "category": "internal",
    "message": "The images could not be rendered; the credits were refunded",
    "retryable": True,
}
INPUT_ERROR = {
    "category": "input",
    "message": "An input image of the generation is missing or cannot be read",
    "retryable": False,
}


@dataclass(frozen=True)
class RemoteState:
    """The provider of a leased generation, and the progress of its task if the provider is remote."""

    provider: str
    model_id: UUID | None
    fallback: str | None
    """The provider to use if this one fails; None if there is none that can render the generation."""
    fallen_back: bool
    task_id: str | None
    steps: int
    failures: int
    started_at: datetime
    should_stop: bool
    """Whether the task must end: the generation is being canceled, or its deadline has passed."""

    @classmethod
    def from_generation(cls, generation: Generation) -> RemoteState:
        """Return the state of a running or canceling generation."""
        model = generation.inputs.get("model", {})
        now = utc_now()
        is_late = generation.deadline_at is not None and generation.deadline_at <= now
        return cls(
            provider=_get_provider(generation),
            model_id=generation.model_id,
            fallback=None if generation.fallen_back else model.get("fallback_provider"),
            fallen_back=generation.fallen_back,
            task_id=generation.remote_task_id,
            steps=generation.remote_steps,
            failures=generation.remote_failures,
            started_at=generation.started_at or now,
            should_stop=generation.status == GenerationStatus.CANCELING or is_late,
        )


@dataclass(frozen=True)
class Lease:
    """A generation that a worker has leased, as plain values for use outside of transactions."""

    generation_id: UUID
    token: str
    strategy: str
    agentic: bool
    batch_size: int
    seed: int
    inputs: dict[str, Any]
    tenant_id: UUID
    """The names of stored files are derived from this id and from their content."""
    remote: RemoteState
    organization_id: UUID | None = None
    trace_context: str | None = None


@dataclass(frozen=True)
class RenderedFile:
    """A rendered image whose file is stored, under a name that is derived from its content."""

    rendered: RenderedImage
    stored: StoredImage
    media_id: UUID


def _available() -> ColumnElement[bool]:
    return or_(and_(Generation.status == GenerationStatus.PENDING, before_deadline()), is_reclaimable())


def count_available(database: Database, limit: int) -> int:
    """Return how many generations can be leased, counted up to `limit`.

    Generations that wait because their tenant has the maximum of running ones count too.
    """
    # unscoped: workers run the generations of every tenant
    return leases.count_available(database, select(Generation.id).where(_available()), limit)


def lease_next(
    database: Database, token: str, lease_duration: timedelta, max_running: int = 0
) -> Lease | None:
    """Lease the next generation; return None if there is none.

    A generation that has used up its attempts fails here.

    Args:
        database: The database of the queue.
        token: The token of the new lease.
        lease_duration: How long the lease lasts.
        max_running: How many generations of a tenant may run at the same time; 0 for no limit.
    """
    started_ns = time.time_ns()
    with database.transaction(write=True) as writing:
        generation = _select_next(writing, max_running)
        while (
            generation is not None
            and generation.attempts >= MAX_ATTEMPTS
            and not is_awaiting_poll(generation)
        ):
            transition(generation, GenerationStatus.FAILED, INTERNAL_ERROR)
            generation = _select_next(writing, max_running)
        if generation is None:
            return None
        if not is_awaiting_poll(generation):
            _start_attempt(generation)
        leases.acquire(generation, token, lease_duration)
        attributes: Attributes = {
            "sartiq.generation_id": str(generation.id),
            "sartiq.attempt": generation.attempts,
        }
        parent = parse_traceparent(generation.trace_context)
        after_commit(partial(record_span, "claim_generation", parent, started_ns, attributes))
        return to_lease(generation, token)


def _start_attempt(generation: Generation) -> None:
    """Start an attempt of a generation that is pending, or whose worker was lost."""
    if generation.status == GenerationStatus.RUNNING:
        # The state machine has no step from running to running.
        transition(generation, GenerationStatus.PENDING)
    transition(generation, GenerationStatus.RUNNING)
    generation.attempts += 1


def to_lease(generation: Generation, token: str) -> Lease:
    """Return the values that a worker needs of a generation that is leased to `token`."""
    return Lease(
        generation_id=generation.id,
        token=token,
        strategy=generation.generation_strategy,
        agentic=generation.generation_type == "AGENTIC",
        batch_size=generation.batch_size,
        seed=generation.seed or 0,
        inputs=dict(generation.inputs),
        tenant_id=generation.organization_id or generation.owner_id,
        remote=RemoteState.from_generation(generation),
        organization_id=generation.organization_id,
        trace_context=generation.trace_context,
    )


def _select_next(writing: Session, max_running: int) -> Generation | None:
    generation = select_next(writing, max_running)
    if (
        generation is not None
        and generation.status == GenerationStatus.RUNNING
        and not is_awaiting_poll(generation)
    ):
        after_commit(count_lease_recovery)
    return generation


def renew(database: Database, lease: Lease, progress: int, lease_duration: timedelta) -> bool:
    """Extend the lease and record the progress (0 to 99); return False if the lease is lost."""
    # The revision changes only with the progress: clients that wait for changes are not woken up otherwise.
    revision = Generation.revision + case((Generation.progress == progress, 0), else_=1)
    running = owned_by(lease, GenerationStatus.RUNNING)
    values = {"revision": revision, "progress": progress}
    is_owned = leases.renew(database, Generation, running, lease_duration, values)
    pubsub.CHANGES.notify()
    return is_owned


def release(database: Database, lease: Lease, *, counts_attempt: bool = False) -> None:
    """Return a generation to the queue, or finish its cancellation."""
    with database.transaction(write=True):
        generation = lock_leased(lease)
        if generation is None:
            return
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
            return
        transition(generation, GenerationStatus.PENDING)
        generation.attempts -= not counts_attempt


def expire_overdue(database: Database) -> int:
    """End generations that no worker will end; return how many.

    These are generations past their deadline, and canceled ones whose worker was lost.
    """
    now = utc_now()
    # The next poll of a remote task cancels it at the provider and ends the generation. The grace period
    # leaves time for that.
    overdue = and_(
        Generation.status.in_((GenerationStatus.PENDING, GenerationStatus.RUNNING)),
        Generation.deadline_at <= now,
        or_(Generation.remote_task_id.is_(None), Generation.deadline_at <= now - CLEANUP_GRACE),
    )
    abandoned = and_(
        Generation.status == GenerationStatus.CANCELING,
        leases.is_expired(Generation.lease_expires_at),
        or_(Generation.lease_owner.is_not(None), Generation.lease_expires_at < now - CLEANUP_GRACE),
    )
    due = select(Generation).where(or_(overdue, abandoned))  # unscoped: deadlines of every tenant
    with database.transaction(write=False) as reading:
        if reading.scalar(due.with_only_columns(Generation.id).limit(1)) is None:
            return 0
    with database.transaction(write=True) as writing:
        due = due.order_by(Generation.id).limit(EXPIRE_BATCH_SIZE).with_for_update(skip_locked=True)
        ended = writing.scalars(due).all()
        for generation in ended:
            if generation.status == GenerationStatus.CANCELING:
                transition(generation, GenerationStatus.CANCELED)
            else:
                transition(generation, GenerationStatus.EXPIRED, EXPIRED_ERROR)
        return len(ended)


def store_rendered_file(
    storage: Storage, lease: Lease, rendered: RenderedImage, stored: StoredImage
) -> RenderedFile:
    """Store the file of a rendered image before a row refers to it.

    After a crash, garbage collection deletes the file. A row without its file cannot occur.
    """
    media_id = uuid5(lease.tenant_id, stored.content_hash)
    storage.write(media_key(media_id, stored.extension), stored.data)
    return RenderedFile(rendered, stored, media_id)


@start_span("record_pictures")
def try_complete(database: Database, storage: Storage, lease: Lease, files: Sequence[RenderedFile]) -> bool:
    """Record the predictions, complete the generation and update its shot.

    Returns False and records no predictions if the lease is lost or the generation was canceled meanwhile.
    """
    with database.transaction(write=True) as writing:
        generation = lock_leased(lease)
        if generation is None:
            return False
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
            return False
        for index, file in enumerate(files):
            writing.add(_build_prediction(storage, generation, index, file))
        transition(generation, GenerationStatus.COMPLETED)
    return True


def fail(database: Database, lease: Lease, error: dict[str, Any]) -> None:
    """Record a failure, unless the lease is lost."""
    with database.transaction(write=True):
        generation = lock_leased(lease)
        if generation is None:
            return
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
        else:
            transition(generation, GenerationStatus.FAILED, error)


def owned_by(lease: Lease, *statuses: GenerationStatus) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that the generation belongs to the lease and has one of the statuses."""
    return (
        Generation.id == lease.generation_id,
        Generation.lease_owner == lease.token,
        Generation.status.in_(statuses),
    )


def lock_leased(lease: Lease) -> Generation | None:
    """Lock and return the leased generation, running or canceling; None if the lease is lost."""
    return leases.lock_leased(
        Generation, owned_by(lease, GenerationStatus.RUNNING, GenerationStatus.CANCELING)
    )


def _build_prediction(storage: Storage, generation: Generation, index: int, file: RenderedFile) -> Prediction:
    rendered, inputs = file.rendered, generation.inputs
    origin = ImageOrigin(generation.model_id, generation.api_key_id, generation.product_id)
    tenant = (generation.organization_id, generation.owner_id)
    media = store_image(storage, file.stored, *tenant, resource_id=file.media_id, origin=origin)
    reserved_ids = inputs.get("prediction_ids")
    return Prediction(
        id=UUID(reserved_ids[index]) if reserved_ids else new_id(),
        owner_id=generation.owner_id,
        organization_id=generation.organization_id,
        generation_id=generation.id,
        shot_id=generation.shot_id,
        media_id=media.id,
        index=index,
        width=rendered.width,
        height=rendered.height,
        content_type=rendered.content_type,
        file_size=len(file.stored.data),
        content_hash=file.stored.content_hash,
        seed=rendered.seed,
        quality=rendered.quality,
        compliance=rendered.compliance,
        warnings=rendered.warnings,
        provenance={
            "model": inputs["model"]["name"],
            "provider": _get_provider(generation),
            "digital_source_type": str(rendered.source_type),
            "renderer_version": rendered.renderer_version,
            "cut_out": rendered.cut_out,
            "inputs": inputs["rows"],
            "settings": {
                **_get_fallback_settings(generation),
                "strategy": generation.generation_strategy,
                **rendered.settings,
            },
            "ignored_inputs": _list_ignored(inputs, rendered, generation.fallen_back),
        },
    )


def _get_provider(generation: Generation) -> str:
    """Return the provider that the inputs name: that of the model, or the fallback."""
    model = generation.inputs.get("model", {})
    return str(model.get("fallback_provider" if generation.fallen_back else "provider") or PROVIDER)


def _get_fallback_settings(generation: Generation) -> dict[str, str]:
    return {"fallback_of": generation.inputs["model"]["provider"]} if generation.fallen_back else {}


def _list_ignored(inputs: dict[str, Any], rendered: RenderedImage, fallen_back: bool) -> list[str]:
    """Return the requested inputs that made no difference, with those that only the renderer knows."""
    request_names = {"tone": "tone", "view_angle": "perspective", "lighting": "lighting", "seed": "seed"}
    unused = [request_names[name] for name in sorted(rendered.unused) if name in request_names]
    requested = [name for name in unused if inputs["asked"].get(name) is not None]
    ignored = inputs["fallback_ignored" if fallen_back else "ignored"]
    return list(dict.fromkeys([*ignored, *requested]))
