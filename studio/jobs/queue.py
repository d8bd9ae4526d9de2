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

from sqlalchemy import ColumnElement, and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from db.base import changed_one, new_id, utc_now
from db.models.generations import Generation, GenerationStatus, Prediction
from db.session import Database, after_commit, session
from studio.jobs import signal
from studio.jobs.turns import in_time, is_left, is_parked, next_in_turn
from studio.lifecycle import EXPIRED, advance
from studio.media.ingest import keep_picture
from studio.media.picture import Picture as StoredPicture
from studio.media.storage import Storage, media_key
from studio.providers.local_studio import PROVIDER, Picture
from studio.telemetry.context import read_traceparent
from studio.telemetry.metrics import count_lease_recovery
from studio.telemetry.traces import Attributes, record_step, step

logger = logging.getLogger(__name__)

MAX_CLAIMS = 3
SETTLE_BATCH = 100
LAST_STEP = timedelta(seconds=60)
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
class Remote:
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
    ending: bool
    """Whether nobody waits for it any more: it is to be canceled, or its deadline has passed."""

    @classmethod
    def of(cls, generation: Generation) -> Remote:
        """What the row of a running or canceling generation says."""
        model = generation.inputs.get("model", {})
        now = utc_now()
        is_late = generation.deadline_at is not None and generation.deadline_at <= now
        return cls(
            provider=_provider_of(generation),
            model_id=generation.model_id,
            fallback=None if generation.fallen_back else model.get("fallback_provider"),
            fallen_back=generation.fallen_back,
            task_id=generation.remote_task_id,
            steps=generation.remote_steps,
            failures=generation.remote_failures,
            started_at=generation.started_at or now,
            ending=generation.status == GenerationStatus.CANCELING or is_late,
        )


@dataclass(frozen=True)
class Claim:
    """A generation in the hands of one worker, as plain values: no transaction stays open for it."""

    generation_id: UUID
    token: str
    strategy: str
    agentic: bool
    batch_size: int
    seed: int
    inputs: dict[str, Any]
    scope: UUID
    """What the names of stored files are derived from, beside their content."""
    remote: Remote
    organization_id: UUID | None = None
    trace_context: str | None = None


@dataclass(frozen=True)
class Made:
    """A picture whose file is stored already, under a name that its content gives."""

    picture: Picture
    stored: StoredPicture
    media_id: UUID


def _claimable() -> ColumnElement[bool]:
    return or_(and_(Generation.status == GenerationStatus.PENDING, in_time()), is_left())


def count_work(database: Database, most: int) -> int:
    """How much there is to claim, counted up to `most`; reads only, so idle workers keep no writer waiting.

    What waits because its tenant has enough in hand counts too.
    """
    # unscoped: workers work for everybody
    some = select(Generation.id).where(_claimable()).limit(most).subquery()
    with database.transaction(write=False) as reading:
        return reading.scalar(select(func.count()).select_from(some)) or 0


def claim_next(database: Database, token: str, lease: timedelta, max_running: int = 0) -> Claim | None:
    """The generation whose turn it is, now leased to `token`; None when there is none.

    A tenant has at most `max_running` generations in hand; 0 sets no limit. One that was claimed too often
    without an end fails here.
    """
    began = time.time_ns()
    with database.transaction(write=True) as writing:
        generation = _next_in_turn(writing, max_running)
        while generation is not None and generation.attempts >= MAX_CLAIMS and not is_parked(generation):
            advance(generation, GenerationStatus.FAILED, INTERNAL_ERROR)
            generation = _next_in_turn(writing, max_running)
        if generation is None:
            return None
        if not is_parked(generation):
            _begin(generation)
        generation.lease_owner, generation.lease_expires_at = token, utc_now() + lease
        told: Attributes = {
            "sartiq.generation_id": str(generation.id),
            "sartiq.attempt": generation.attempts,
        }
        order = read_traceparent(generation.trace_context)
        after_commit(partial(record_step, "claim_generation", order, began, told))
        return claim_of(generation, token)


def _begin(generation: Generation) -> None:
    """Begin another attempt at a generation that waits, or whose worker is lost."""
    if generation.status == GenerationStatus.RUNNING:
        # It comes back into the queue and out again.
        advance(generation, GenerationStatus.PENDING)
    advance(generation, GenerationStatus.RUNNING)
    generation.attempts += 1


def claim_of(generation: Generation, token: str) -> Claim:
    """What a worker takes with it of a row that it has leased to `token`."""
    return Claim(
        generation_id=generation.id,
        token=token,
        strategy=generation.generation_strategy,
        agentic=generation.generation_type == "AGENTIC",
        batch_size=generation.batch_size,
        seed=generation.seed or 0,
        inputs=dict(generation.inputs),
        scope=generation.organization_id or generation.owner_id,
        remote=Remote.of(generation),
        organization_id=generation.organization_id,
        trace_context=generation.trace_context,
    )


def _next_in_turn(writing: Session, max_running: int) -> Generation | None:
    generation = next_in_turn(writing, max_running)
    if generation is not None and generation.status == GenerationStatus.RUNNING and not is_parked(generation):
        after_commit(count_lease_recovery)
    return generation


def renew(database: Database, claim: Claim, progress: int, lease: timedelta) -> bool:
    """Prolong the lease and tell the progress (0..99); False when the generation is no longer ours."""
    with database.transaction(write=True) as writing:
        changed = writing.execute(
            update(Generation)  # unscoped: the row that was claimed
            .where(*ours(claim, GenerationStatus.RUNNING))
            .values(
                # A watcher hears of new progress only.
                revision=Generation.revision + case((Generation.progress == progress, 0), else_=1),
                progress=progress,
                lease_expires_at=utc_now() + lease,
            )
            .execution_options(synchronize_session=False)
        )
        after_commit(signal.CHANGES.wake)
        return changed_one(changed)


def release(database: Database, claim: Claim) -> None:
    """Let go of an unfinished generation: back to the queue, where the try does not count, or canceled."""
    with database.transaction(write=True):
        generation = locked(claim)
        if generation is None:
            return
        if generation.status == GenerationStatus.CANCELING:
            advance(generation, GenerationStatus.CANCELED)
            return
        advance(generation, GenerationStatus.PENDING)
        generation.attempts -= 1


def settle_overdue(database: Database) -> int:
    """End what nobody will: past its deadline, or canceled while its worker got lost; how many ended."""
    now = utc_now()
    # What is made elsewhere is ended by its next step, which cancels it there, if any worker takes that.
    overdue = and_(
        Generation.status.in_((GenerationStatus.PENDING, GenerationStatus.RUNNING)),
        Generation.deadline_at <= now,
        or_(Generation.remote_task_id.is_(None), Generation.deadline_at <= now - LAST_STEP),
    )
    abandoned = and_(
        Generation.status == GenerationStatus.CANCELING,
        Generation.lease_expires_at < now,
        or_(Generation.lease_owner.is_not(None), Generation.lease_expires_at < now - LAST_STEP),
    )
    due = select(Generation).where(or_(overdue, abandoned))  # unscoped: time is over for everybody
    with database.transaction(write=False) as reading:
        if reading.scalar(due.with_only_columns(Generation.id).limit(1)) is None:
            return 0
    with database.transaction(write=True) as writing:
        due = due.order_by(Generation.id).limit(SETTLE_BATCH).with_for_update(skip_locked=True)
        ended = writing.scalars(due).all()
        for generation in ended:
            if generation.status == GenerationStatus.CANCELING:
                advance(generation, GenerationStatus.CANCELED)
            else:
                advance(generation, GenerationStatus.EXPIRED, EXPIRED)
        return len(ended)


def store_picture(storage: Storage, claim: Claim, picture: Picture, stored: StoredPicture) -> Made:
    """Write the file of a picture before any row names it: a crash leaves an orphan at worst, never a gap."""
    media_id = uuid5(claim.scope, stored.content_hash)
    storage.write(media_key(media_id, stored.extension), stored.data)
    return Made(picture, stored, media_id)


@step("record_pictures")
def finish(database: Database, storage: Storage, claim: Claim, pictures: Sequence[Made]) -> bool:
    """Record the pictures, the end of the generation and the shot's new state, all or nothing.

    False, and nothing recorded, when the generation is no longer ours or was canceled meanwhile.
    """
    with database.transaction(write=True) as writing:
        generation = locked(claim)
        if generation is None:
            return False
        if generation.status == GenerationStatus.CANCELING:
            advance(generation, GenerationStatus.CANCELED)
            return False
        for index, made in enumerate(pictures):
            writing.add(_prediction(storage, generation, index, made))
        advance(generation, GenerationStatus.COMPLETED)
    return True


def fail(database: Database, claim: Claim, error: dict[str, Any]) -> None:
    """Record the failure, return the credits and bring the shot back to where it was, if it is still ours."""
    with database.transaction(write=True):
        generation = locked(claim)
        if generation is None:
            return
        if generation.status == GenerationStatus.CANCELING:
            advance(generation, GenerationStatus.CANCELED)
        else:
            advance(generation, GenerationStatus.FAILED, error)


def ours(claim: Claim, *statuses: GenerationStatus) -> tuple[ColumnElement[bool], ...]:
    """The claimed row, as long as it is leased to this claim and in one of these states."""
    return (
        Generation.id == claim.generation_id,
        Generation.lease_owner == claim.token,
        Generation.status.in_(statuses),
    )


def locked(claim: Claim) -> Generation | None:
    """The claimed generation while it is ours: running, or to be canceled by us."""
    still = ours(claim, GenerationStatus.RUNNING, GenerationStatus.CANCELING)
    # unscoped: the row that was claimed
    return session().scalar(select(Generation).where(*still).with_for_update(of=Generation))


def _prediction(storage: Storage, generation: Generation, index: int, made: Made) -> Prediction:
    picture, inputs = made.picture, generation.inputs
    media = keep_picture(
        storage, made.stored, generation.organization_id, generation.owner_id, resource_id=made.media_id
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
        content_hash=made.stored.content_hash,
        seed=picture.seed,
        quality=picture.quality,
        provenance={
            "model": inputs["model"]["name"],
            "provider": _provider_of(generation),
            "renderer_version": picture.renderer_version,
            "cut_out": picture.cut_out,
            "inputs": inputs["rows"],
            "settings": {
                **_fallback_of(generation),
                "strategy": generation.generation_strategy,
                **picture.settings,
            },
            "ignored_inputs": _ignored(inputs, picture, generation.fallen_back),
        },
    )


def _provider_of(generation: Generation) -> str:
    """Who makes the pictures: the model's provider as it was when they were ordered, or its fallback."""
    model = generation.inputs.get("model", {})
    return str(model.get("fallback_provider" if generation.fallen_back else "provider") or PROVIDER)


def _fallback_of(generation: Generation) -> dict[str, str]:
    return {"fallback_of": generation.inputs["model"]["provider"]} if generation.fallen_back else {}


def _ignored(inputs: dict[str, Any], picture: Picture, fallen_back: bool) -> list[str]:
    """What the caller gave for nothing, with what only the renderer could tell."""
    told = {"tone": "tone", "view_angle": "perspective", "lighting": "lighting"}
    found_out = [told[name] for name in sorted(picture.unused) if name in told]
    given = [name for name in found_out if inputs["asked"].get(name) is not None]
    ignored = inputs["fallback_ignored" if fallen_back else "ignored"]
    return list(dict.fromkeys([*ignored, *given]))
