"""Schedule the polls of generations that a remote provider renders.

Between two polls, a generation is running and has no lease owner. Its `lease_expires_at` is the time of the
next poll: any worker can lease it then, like a generation whose worker was lost. A remote task thus holds no
thread and survives the worker that submitted it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import utc_now
from db.models.generations import Generation, GenerationStatus
from db.session import Database, after_commit, current_session
from studio.generations.lifecycle import EXPIRED_ERROR, transition
from studio.generations.worker.queue import GENERATIONS, GenerationLease
from studio.infrastructure import pubsub


def schedule_poll(
    database: Database,
    lease: GenerationLease,
    task_id: str,
    delay: timedelta,
    progress: int,
    failures: int = 0,
) -> None:
    """Release the generation until its next poll.

    It is due immediately if it is to be canceled or if a callback has arrived during this step, and at its
    deadline at the latest.

    Args:
        database: The database of the queue.
        lease: The lease of the generation.
        task_id: The task of the provider.
        delay: The time until the next poll.
        progress: The progress of the task, 0 to 100.
        failures: The number of consecutive failed polls.

    Raises:
        LeaseLost: Another worker has taken the generation over.
    """
    with database.transaction(write=True):
        generation = GENERATIONS.lock(lease)
        now = utc_now()
        has_callback = generation.remote_steps != lease.remote.steps
        due = now if has_callback or generation.status == GenerationStatus.CANCELING else now + delay
        generation.lease_owner = None
        generation.lease_expires_at = min(due, max(now, generation.deadline_at or due))
        generation.remote_task_id = task_id
        generation.remote_steps += 1
        generation.remote_failures = failures
        _record_progress(generation, progress)


def finish_stopped(database: Database, lease: GenerationLease) -> None:
    """Record that a generation was canceled or has expired, if it still belongs to the lease."""
    with database.transaction(write=True):
        generation = GENERATIONS.lock(lease)
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
        else:
            transition(generation, GenerationStatus.EXPIRED, EXPIRED_ERROR)


def switch_to_fallback(database: Database, lease: GenerationLease, error: dict[str, Any]) -> None:
    """Return the generation to the queue for the fallback provider; without one, record the error."""
    with database.transaction(write=True):
        generation = GENERATIONS.lock(lease)
        if generation.status == GenerationStatus.CANCELING:
            transition(generation, GenerationStatus.CANCELED)
        elif lease.remote.fallback is None:
            transition(generation, GenerationStatus.FAILED, error)
        else:
            transition(generation, GenerationStatus.PENDING)
            generation.fallen_back = True
            generation.remote_task_id = None
            generation.remote_steps = generation.remote_failures = generation.attempts = 0
            after_commit(pubsub.GENERATIONS.notify)


def poll_now(task_id: str, generation_id: UUID | None, progress: int | None) -> None:
    """Make the generation of a task due for a poll, which loads the state of the task.

    Unknown tasks and tasks that are no longer running are ignored.

    Args:
        task_id: The task of the provider.
        generation_id: The generation that the callback names, if it names one.
        progress: The progress that the callback reports, 0 to 100.
    """
    running = select(Generation).where(  # unscoped: the provider knows no tenants
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
        # A worker polls it right now, perhaps too early: `schedule_poll` sees the changed number of steps.
        generation.remote_steps += 1
    _record_progress(generation, progress or 0)
    after_commit(pubsub.GENERATIONS.notify)


def _record_progress(generation: Generation, progress: int) -> None:
    """Record progress up to 99. It never decreases, because callbacks and polls arrive in any order."""
    new_progress = max(generation.progress, min(99, progress))
    if new_progress != generation.progress:
        generation.progress = new_progress
        generation.revision += 1
        after_commit(pubsub.CHANGES.notify)
