"""The queue of generations: what is special about its rows, and how a generation is completed.

`scheduling.py` chooses the next generation. Between two polls of a remote provider, a generation is running
and has no lease owner: leasing it for a poll is no attempt.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, or_, select

from db.base import new_id, utc_now
from db.errors import NotFound
from db.models.generations import Generation, GenerationStatus, Prediction
from db.session import Database, after_commit, current_session
from studio.cutouts.requests import UnusableCutoutInputs
from studio.generations.lifecycle import EXPIRED_ERROR, transition
from studio.generations.worker.scheduling import choose_permitted, is_available, is_awaiting_poll
from studio.infrastructure import pubsub
from studio.infrastructure.storage import Storage, is_storage_unavailable
from studio.infrastructure.telemetry.context import parse_traceparent
from studio.infrastructure.telemetry.traces import Attributes, record_span, start_span
from studio.media.ingest import ImageOrigin, store_image, store_image_file
from studio.media.stored_image import StoredImage
from studio.providers.local import PROVIDER, RenderedImage
from studio.queue.row_queue import Lease, RowQueue, is_expired
from studio.state_machines import OPEN_GENERATION

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


class UnusableInputs(Exception):
    """An input file of the generation is missing or cannot be read."""


@contextmanager
def reading_inputs() -> Iterator[None]:
    """Raise UnusableInputs for an error of the block that is one of an input file, not of the storage."""
    try:
        yield
    except (NotFound, OSError, UnusableCutoutInputs) as error:
        if is_storage_unavailable(error):
            raise
        raise UnusableInputs from error


@dataclass(frozen=True, kw_only=True)
class GenerationLease(Lease):
    """A leased generation."""

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


def _start(generation: Generation) -> None:
    """Start an attempt of a generation that is pending, or whose worker was lost."""
    if is_awaiting_poll(generation):
        return
    if generation.status == GenerationStatus.RUNNING:
        # The state machine has no step from running to running.
        transition(generation, GenerationStatus.PENDING)
    transition(generation, GenerationStatus.RUNNING)


def _take(generation: Generation, token: str) -> GenerationLease:
    attributes: Attributes = {
        "sartiq.generation_id": str(generation.id),
        "sartiq.attempt": generation.attempts,
    }
    parent = parse_traceparent(generation.trace_context)
    after_commit(partial(record_span, "claim_generation", parent, time.time_ns(), attributes))
    return to_lease(generation, token)


def to_lease(generation: Generation, token: str) -> GenerationLease:
    """Return the values that a worker needs of a generation that is leased to `token`."""
    return GenerationLease(
        row_id=generation.id,
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


def _describe_progress(progress: int) -> dict[str, Any]:
    # The revision changes only with the progress: clients that wait for changes are not woken up otherwise.
    revision = Generation.revision + case((Generation.progress == progress, 0), else_=1)
    after_commit(pubsub.CHANGES.notify)
    return {"revision": revision, "progress": progress}


def _requeue(generation: Generation, available_at: datetime | None, _error: object) -> None:
    """Return a generation to the queue, or finish its cancellation. A remote task is polled again."""
    if generation.status == GenerationStatus.CANCELING:
        transition(generation, GenerationStatus.CANCELED)
    elif generation.remote_task_id is not None:
        generation.lease_expires_at = available_at or utc_now()
    else:
        transition(generation, GenerationStatus.PENDING)
        generation.lease_expires_at = available_at


def _fail(generation: Generation, error: dict[str, Any] | None) -> None:
    if generation.status == GenerationStatus.CANCELING:
        transition(generation, GenerationStatus.CANCELED)
    else:
        transition(generation, GenerationStatus.FAILED, error or INTERNAL_ERROR)


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
        is_expired(Generation),
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
    storage: Storage, lease: GenerationLease, rendered: RenderedImage, stored: StoredImage
) -> RenderedFile:
    """Store the file of a rendered image before a row refers to it."""
    return RenderedFile(rendered, stored, store_image_file(storage, lease.tenant_id, stored))


@start_span("record_images")
def complete_generation(storage: Storage, lease: GenerationLease, files: Sequence[RenderedFile]) -> None:
    """Record the predictions, complete the generation and update its shot.

    A generation that was canceled meanwhile ends without predictions.

    Raises:
        LeaseLost: Another worker has taken the generation over.
    """
    generation = GENERATIONS.lock(lease)
    if generation.status == GenerationStatus.CANCELING:
        transition(generation, GenerationStatus.CANCELED)
        return
    for index, file in enumerate(files):
        current_session().add(_build_prediction(storage, generation, index, file))
    transition(generation, GenerationStatus.COMPLETED)


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


GENERATIONS = RowQueue(
    name="generation",
    model=Generation,
    take=_take,
    end_failed=_fail,
    condition=is_available,
    choose=choose_permitted,
    start=_start,
    requeue=_requeue,
    progress_values=_describe_progress,
    permanent={UnusableInputs: lambda _error: INPUT_ERROR},
    open_statuses=OPEN_GENERATION,
    leased_statuses=(GenerationStatus.RUNNING, GenerationStatus.CANCELING),
    counts=lambda generation: not is_awaiting_poll(generation),
)
