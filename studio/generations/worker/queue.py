"""The queue's meaning: claim, renew, finish, fail and release a generation. The row is the queue.

Whoever claims a row writes a token of its own into it, and every later write asks for that token: a worker
that was given up for dead can no longer change anything. Transactions are short, and none is open while
pictures are made.
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
from studio.media.ingest import store_image
from studio.media.storage import Storage, media_key
from studio.media.stored_image import StoredImage as StoredPicture
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
    "message": "The pictures could not be made; the credits were returned",
    "retryable": True,
}
INPUT_ERROR = {
    "category": "input",
    "message": "A picture that this generation works from is gone or cannot be read",
    "retryable": False,
}


@dataclass(frozen=True)
class RemoteState:
    """Who makes a claimed generation, and how far that is when it is made elsewhere."""

    provider: str
    model_id: UUID | None
    fallback: str | None
    """The provider that carries it out when this one cannot; None when there is no able one."""
    fallen_back: bool
    task_id: str | None
    steps: int
    failures: int
    started_at: datetime
    should_stop: bool
    """Whether nobody waits for it any more: it is to be canceled, or its deadline has passed."""

    @classmethod
    def from_generation(cls, generation: Generation) -> RemoteState:
        """What the row of a running or canceling generation says."""
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
    """A generation in the hands of one worker, as plain values: no transaction stays open for it."""

    generation_id: UUID
    token: str
    strategy: str
    agentic: bool
    batch_size: int
    seed: int
    inputs: dict[str, Any]
    tenant_id: UUID
    """What the names of stored files are derived from, beside their content."""
    remote: RemoteState
    organization_id: UUID | None = None
    trace_context: str | None = None


@dataclass(frozen=True)
class RenderedFile:
    """A picture whose file is stored already, under a name that its content gives."""

    rendered: RenderedImage
    stored: StoredPicture
    media_id: UUID


def _available() -> ColumnElement[bool]:
    return or_(and_(Generation.status == GenerationStatus.PENDING, before_deadline()), is_reclaimable())


def count_available(database: Database, limit: int) -> int:
    """How much there is to claim, counted up to `most`; reads only, so idle workers keep no writer waiting.

    What waits because its tenant has enough in hand counts too.
    """
    # unscoped: workers run the generations of every tenant
    return leases.count_available(database, select(Generation.id).where(_available()), limit)


def lease_next(
    database: Database, token: str, lease_duration: timedelta, max_running: int = 0
) -> Lease | None:
    """The generation whose turn it is, now leased to `token`; None when there is none.

    A tenant has at most `max_running` generations in hand; 0 sets no limit. One that was claimed too often
    without an end fails here.
    """
    began = time.time_ns()
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
        told: Attributes = {
            "sartiq.generation_id": str(generation.id),
            "sartiq.attempt": generation.attempts,
        }
        order = parse_traceparent(generation.trace_context)
        after_commit(partial(record_span, "claim_generation", order, began, told))
        return to_lease(generation, token)


def _start_attempt(generation: Generation) -> None:
    """Begin another attempt at a generation that waits, or whose worker is lost."""
    if generation.status == GenerationStatus.RUNNING:
        # It comes back into the queue and out again.
        transition(generation, GenerationStatus.PENDING)
    transition(generation, GenerationStatus.RUNNING)
    generation.attempts += 1


def to_lease(generation: Generation, token: str) -> Lease:
    """What a worker takes with it of a row that it has leased to `token`."""
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
    """Prolong the lease and tell the progress (0..99); False when the generation is no longer ours."""
    # The revision changes only with the progress: clients that wait for changes are not woken up otherwise.
    revision = Generation.revision + case((Generation.progress == progress, 0), else_=1)
    running = owned_by(lease, GenerationStatus.RUNNING)
    values = {"revision": revision, "progress": progress}
    is_owned = leases.renew(database, Generation, running, lease_duration, values)
    pubsub.CHANGES.notify()
    return is_owned


def release(database: Database, lease: Lease) -> None:
    """Let go of an unfinished generation: back to the queue, where the try does not count, or canceled."""
    with database.transaction(write=True):
        generation = lock_leased(lease)
        if generation is None:
            return
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
            return
        transition(generation, GenerationStatus.PENDING)
        generation.attempts -= 1


def expire_overdue(database: Database) -> int:
    """End what nobody will: past its deadline, or canceled while its worker got lost; how many ended."""
    now = utc_now()
    # What is made elsewhere is ended by its next step, which cancels it there, if any worker takes that.
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
    due = select(Generation).where(or_(overdue, abandoned))  # unscoped: time is over for everybody
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
    storage: Storage, lease: Lease, rendered: RenderedImage, stored: StoredPicture
) -> RenderedFile:
    """Write the file of a picture before any row names it: a crash leaves an orphan at worst, never a gap."""
    media_id = uuid5(lease.tenant_id, stored.content_hash)
    storage.write(media_key(media_id, stored.extension), stored.data)
    return RenderedFile(rendered, stored, media_id)


@start_span("record_pictures")
def try_complete(database: Database, storage: Storage, lease: Lease, files: Sequence[RenderedFile]) -> bool:
    """Record the pictures, the end of the generation and the shot's new state, all or nothing.

    False, and nothing recorded, when the generation is no longer ours or was canceled meanwhile.
    """
    with database.transaction(write=True) as writing:
        generation = lock_leased(lease)
        if generation is None:
            return False
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
            return False
        for index, made in enumerate(files):
            writing.add(_build_prediction(storage, generation, index, made))
        transition(generation, GenerationStatus.COMPLETED)
    return True


def fail(database: Database, lease: Lease, error: dict[str, Any]) -> None:
    """Record the failure, return the credits and bring the shot back to where it was, if it is still ours."""
    with database.transaction(write=True):
        generation = lock_leased(lease)
        if generation is None:
            return
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
        else:
            transition(generation, GenerationStatus.FAILED, error)


def owned_by(lease: Lease, *statuses: GenerationStatus) -> tuple[ColumnElement[bool], ...]:
    """The claimed row, as long as it is leased to this claim and in one of these states."""
    return (
        Generation.id == lease.generation_id,
        Generation.lease_owner == lease.token,
        Generation.status.in_(statuses),
    )


def lock_leased(lease: Lease) -> Generation | None:
    """The claimed generation while it is ours: running, or to be canceled by us."""
    return leases.lock_leased(
        Generation, owned_by(lease, GenerationStatus.RUNNING, GenerationStatus.CANCELING)
    )


def _build_prediction(storage: Storage, generation: Generation, index: int, file: RenderedFile) -> Prediction:
    picture, inputs = file.rendered, generation.inputs
    media = store_image(
        storage, file.stored, generation.organization_id, generation.owner_id, resource_id=file.media_id
    )
    reserved = inputs.get("prediction_ids")
    return Prediction(
        id=UUID(reserved[index]) if reserved else new_id(),
        owner_id=generation.owner_id,
        organization_id=generation.organization_id,
        generation_id=generation.id,
        shot_id=generation.shot_id,
        media_id=media.id,
        index=index,
        width=picture.width,
        height=picture.height,
        content_type=picture.content_type,
        file_size=len(picture.image),
        content_hash=file.stored.content_hash,
        seed=picture.seed,
        quality=picture.quality,
        provenance={
            "model": inputs["model"]["name"],
            "provider": _get_provider(generation),
            "renderer_version": picture.renderer_version,
            "cut_out": picture.cut_out,
            "inputs": inputs["rows"],
            "settings": {
                **_get_fallback_settings(generation),
                "strategy": generation.generation_strategy,
                **picture.settings,
            },
            "ignored_inputs": _list_ignored(inputs, picture, generation.fallen_back),
        },
    )


def _get_provider(generation: Generation) -> str:
    """Who makes the pictures: the model's provider as it was when they were ordered, or its fallback."""
    model = generation.inputs.get("model", {})
    return str(model.get("fallback_provider" if generation.fallen_back else "provider") or PROVIDER)


def _get_fallback_settings(generation: Generation) -> dict[str, str]:
    return {"fallback_of": generation.inputs["model"]["provider"]} if generation.fallen_back else {}


def _list_ignored(inputs: dict[str, Any], rendered: RenderedImage, fallen_back: bool) -> list[str]:
    """What the caller gave for nothing, with what only the renderer could tell."""
    told = {"tone": "tone", "view_angle": "perspective", "lighting": "lighting"}
    found_out = [told[name] for name in sorted(rendered.unused) if name in told]
    given = [name for name in found_out if inputs["asked"].get(name) is not None]
    ignored = inputs["fallback_ignored" if fallen_back else "ignored"]
    return list(dict.fromkeys([*ignored, *given]))
