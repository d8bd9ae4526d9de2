"""Generations that are made elsewhere, while nobody here works on them: parked until the next look is due.

A parked row is running and leased to nobody; `lease_expires_at` says when it is due, for any worker on any
machine. So a remote task holds no thread, and survives whoever asked for it. The queue claims it as others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import utc_now
from db.models.generations import Generation, GenerationStatus
from db.session import Database, after_commit, current_session
from studio import leases
from studio.generations.lifecycle import EXPIRED_ERROR, transition
from studio.generations.worker.queue import Lease, lock_leased, owned_by
from studio.pubsub import CHANGES, notify_workers


@contextmanager
def keep_lease(database: Database, lease: Lease, lease_duration: timedelta) -> Iterator[None]:
    """Keep the generation leased within the block, however long the other side takes to answer."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(lease_duration.total_seconds() / 3):
            leases.renew_despite_outage(
                partial(renew_lease, database, lease, lease_duration), f"generation {lease.generation_id}"
            )

    keeper = threading.Thread(target=keep, name="lease-keeper", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def renew_lease(database: Database, lease: Lease, lease_duration: timedelta) -> bool:
    """Prolong the lease; False when the generation is no longer ours."""
    owned = owned_by(lease, GenerationStatus.RUNNING, GenerationStatus.CANCELING)
    return leases.renew(database, Generation, owned, lease_duration)


def schedule_poll(
    database: Database, lease: Lease, task_id: str, delay: timedelta, progress: int, failures: int = 0
) -> bool:
    """Let go of the generation until the pause is over; False when it is no longer ours to watch.

    One that is to be canceled is due at once, as is one of which there came news during the step, and one
    with a deadline when that has passed.
    """
    with database.transaction(write=True):
        generation = lock_leased(lease)
        if generation is None:
            return False
        now = utc_now()
        has_news = generation.remote_steps != lease.remote.steps
        due = now if has_news or generation.status == GenerationStatus.CANCELING else now + delay
        generation.lease_owner = None
        generation.lease_expires_at = min(due, max(now, generation.deadline_at or due))
        generation.remote_task_id = task_id
        generation.remote_steps += 1
        generation.remote_failures = failures
        _record_progress(generation, progress)
    return True


def finish_stopped(database: Database, lease: Lease) -> None:
    """The end of a generation that was canceled, or whose deadline has passed; nothing if it is not ours."""
    with database.transaction(write=True):
        generation = lock_leased(lease)
        if generation is None:
            return
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
        else:
            transition(generation, GenerationStatus.EXPIRED, EXPIRED_ERROR)


def switch_to_fallback(database: Database, lease: Lease, error: dict[str, Any]) -> None:
    """Back into the queue for the model's fallback provider; without one, failed and the credits returned."""
    with database.transaction(write=True):
        generation = lock_leased(lease)
        if generation is None:
            return
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
        elif lease.remote.fallback is None:
            transition(generation, GenerationStatus.FAILED, error)
        else:
            transition(generation, GenerationStatus.PENDING)
            generation.fallen_back = True
            generation.remote_task_id = None
            generation.remote_steps = generation.remote_failures = generation.attempts = 0
            after_commit(notify_workers)


def poll_now(task_id: str, generation_id: UUID | None, progress: int | None) -> None:
    """Make a generation due, because its task has news; what the news is, the next look decides.

    Of a task that is not running here nothing changes, and nothing is told.
    """
    running = select(Generation).where(  # unscoped: the other side knows no tenants
        Generation.remote_task_id == task_id,
        Generation.status == GenerationStatus.RUNNING,
        *(() if generation_id is None else (Generation.id == generation_id,)),
    )
    generation = current_session().scalar(running.with_for_update(of=Generation))
    if generation is None:
        return
    if generation.lease_owner is None:
        generation.lease_expires_at = utc_now()
    else:
        # Somebody looks at it right now, perhaps a moment too early: whoever parks it will see the mark.
        generation.remote_steps += 1
    _record_progress(generation, progress or 0)
    after_commit(notify_workers)


def _record_progress(generation: Generation, progress: int) -> None:
    """Only ever more, and the last step is ours: call-backs and looks arrive in any order."""
    told = max(generation.progress, min(99, progress))
    if told != generation.progress:
        generation.progress = told
        generation.revision += 1
        after_commit(CHANGES.notify)
