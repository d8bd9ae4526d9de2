"""Notify waiting requests when a generation changes, with one database query per round for all of them.

The hub lives on the event loop and reads in a thread of its own. It holds no connection between rounds and
does nothing while no request waits. The caller has checked the permission to see the generation; the module
knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from db.models.generations import Generation, Prediction
from studio import pubsub
from studio.state_machines import GENERATION_STATES

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.3
MIN_POLL_SECONDS = 0.05
"""The shortest pause between two rounds, for times of constant changes."""
RETRY_SECONDS = 2.0
MAX_LISTENERS = 1_000
MAX_LISTENERS_PER_ACCOUNT = 250
"""One account cannot use up the listeners of all others."""

Transaction = Callable[[bool], AbstractContextManager[Any]]


@dataclass(frozen=True)
class GenerationState:
    """The progress of a generation as plain values."""

    generation_id: UUID
    revision: int
    status: str
    progress: int
    queue_position: int | None
    attempts: int
    predictions_count: int
    error: dict[str, Any] | None

    @property
    def is_final(self) -> bool:
        """Whether the status is final."""
        return not GENERATION_STATES[self.status]


def snapshot(generation: Generation) -> GenerationState:
    """Return the state of a generation whose predictions are loaded."""
    return GenerationState(
        generation_id=generation.id,
        revision=generation.revision,
        status=generation.status,
        progress=generation.progress,
        queue_position=generation.queue_position,
        attempts=generation.attempts,
        predictions_count=len(generation.predictions),
        error=generation.error,
    )


def load_changed(
    transaction: Transaction, known: Mapping[UUID, int]
) -> Mapping[UUID, GenerationState | None]:
    """Return the state of each generation that has changed, None for one that was deleted.

    Args:
        transaction: Opens a transaction; False opens one for reading.
        known: The last known revision of each generation.
    """
    with transaction(False) as reading:
        # unscoped: the request of each listener has checked its permission
        select_revisions = select(Generation.id, Generation.revision).where(Generation.id.in_(known))
        revisions = {row.id: row.revision for row in reading.execute(select_revisions)}
        changed = [
            generation_id for generation_id, revision in revisions.items() if revision > known[generation_id]
        ]
        states = (
            [GenerationState(*row) for row in reading.execute(_select_states(changed))] if changed else []
        )
    deleted: dict[UUID, GenerationState | None] = dict.fromkeys(known.keys() - revisions.keys())
    return deleted | {state.generation_id: state for state in states}


def _select_states(generation_ids: list[UUID]) -> Any:
    predictions_count = (
        select(func.count()).where(Prediction.generation_id == Generation.id).scalar_subquery()
    )
    return select(  # unscoped: the request of each listener has checked its permission
        Generation.id,
        Generation.revision,
        Generation.status,
        Generation.progress,
        Generation.queue_position,
        Generation.attempts,
        predictions_count,
        Generation.error,
    ).where(Generation.id.in_(generation_ids))


class Listener:
    """A request that waits for changes of one generation.

    Attributes:
        generation_id: The generation.
        revision: The last known revision.
        state: The last known state; None once the generation is deleted.
        closed: Whether no more changes will come, because the process ends.
    """

    def __init__(self, state: GenerationState, final_only: bool) -> None:
        self.generation_id, self.revision = state.generation_id, state.revision
        self.state: GenerationState | None = state
        self._final_only = final_only
        self.closed = False
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return after a change, at the latest after these seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    def notify(self, state: GenerationState | None) -> None:
        """Pass on a state, unless a later one is known already.

        With `final_only`, only a final state or the deletion ends `wait`.
        """
        if state is not None and state.revision <= self.revision:
            return
        self.state = state
        self.revision = state.revision if state is not None else self.revision
        if not self._final_only or state is None or state.is_final:
            self._changed.set()

    def close(self) -> None:
        """End the wait for good."""
        self.closed = True
        self._changed.set()


class ChangeHub:
    """The listeners of this process. Requests can wait between `open` and `close` only."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._listeners: dict[UUID, set[Listener]] = {}
        self._counts: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Open the hub on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._wakeup = asyncio.Event()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="watcher")
        pubsub.CHANGES.subscribe(self._on_change)

    def close(self) -> None:
        """Close all listeners; can be called from any thread."""
        self._call_threadsafe(self._close_all)

    @property
    def is_open(self) -> bool:
        """Whether the hub is open on the running loop; behind a WSGI server it never is."""
        return self._loop is not None and self._loop is asyncio.get_running_loop()

    def has_capacity(self, account: str) -> bool:
        """Return whether one more request, and one more of this account, can wait."""
        return self._counts.total() < MAX_LISTENERS and self._counts[account] < MAX_LISTENERS_PER_ACCOUNT

    @contextmanager
    def subscribe(self, state: GenerationState, account: str, final_only: bool = False) -> Iterator[Listener]:
        """Listen for changes after `state`, or for the final state only, within the block."""
        listener = Listener(state, final_only)
        self._listeners.setdefault(state.generation_id, set()).add(listener)
        self._counts[account] += 1
        self._ensure_polling()
        try:
            yield listener
        finally:
            listeners = self._listeners[state.generation_id]
            listeners.discard(listener)
            if not listeners:
                del self._listeners[state.generation_id]
            self._counts[account] -= 1
            if not self._counts[account]:
                del self._counts[account]

    def __len__(self) -> int:
        return self._counts.total()

    def watched_ids(self) -> set[UUID]:
        """Return the generations that have listeners."""
        return set(self._listeners)

    def _ensure_polling(self) -> None:
        if self._loop is not None and (self._poller is None or self._poller.done()):
            # An empty context: the poller serves all requests, not only the one that starts it.
            self._poller = self._loop.create_task(self._poll(), context=Context())

    async def _poll(self) -> None:
        while self._listeners:
            await asyncio.sleep(MIN_POLL_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS - MIN_POLL_SECONDS):
                    await self._wakeup.wait()
            self._wakeup.clear()
            await self._poll_once()

    async def _poll_once(self) -> None:
        known = {
            generation_id: min(listener.revision for listener in listeners)
            for generation_id, listeners in self._listeners.items()
        }
        if not known or self._loop is None:
            return
        try:
            changed = await self._loop.run_in_executor(self._reader, load_changed, self._transaction, known)
        except SQLAlchemyError as error:
            logger.error("watched generations could not be read, retrying: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            return
        except Exception:
            logger.exception("watched generations could not be read, retrying")
            await asyncio.sleep(RETRY_SECONDS)
            return
        for generation_id, state in changed.items():
            for listener in list(self._listeners.get(generation_id, ())):
                listener.notify(state)
            # One change can wake a hundred listeners that send: let other tasks of the loop run in between.
            await asyncio.sleep(0)

    def _on_change(self) -> None:
        self._call_threadsafe(self._wakeup.set)

    def _call_threadsafe(self, callback: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None:
            # A closed loop has no listeners left.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(callback)

    def _close_all(self) -> None:
        self._loop = None
        pubsub.CHANGES.unsubscribe(self._on_change)
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.close()
        self._reader.shutdown(wait=False)
