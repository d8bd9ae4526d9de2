"""Tells whoever waits for a generation that it has changed: one look at the database a round, for everybody.

It lives on the event loop and reads in a thread of its own; between rounds it holds no connection, and while
nobody waits it does nothing. Who may watch what was decided before; it knows no HTTP.
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
"""Pause between two looks when there is news all the time."""
RETRY_SECONDS = 2.0
MAX_LISTENERS = 1_000
MAX_LISTENERS_PER_ACCOUNT = 250
"""So that one account cannot take the places of all others."""

Transaction = Callable[[bool], AbstractContextManager[Any]]


@dataclass(frozen=True)
class GenerationState:
    """How far a generation is, as plain values."""

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
        """Whether nothing more will happen to it."""
        return not GENERATION_STATES[self.status]


def snapshot(generation: Generation) -> GenerationState:
    """The state of a row whose pictures are loaded."""
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
    """The state of each generation that is past its known revision, None for one that is gone."""
    with transaction(False) as reading:
        # unscoped: whoever watches was let in by a request of their own
        revisions = select(Generation.id, Generation.revision).where(Generation.id.in_(known))
        found = {row.id: row.revision for row in reading.execute(revisions)}
        changed = [one for one, revision in found.items() if revision > known[one]]
        states = (
            [GenerationState(*row) for row in reading.execute(_select_states(changed))] if changed else []
        )
    gone: dict[UUID, GenerationState | None] = dict.fromkeys(known.keys() - found.keys())
    return gone | {state.generation_id: state for state in states}


def _select_states(generation_ids: list[UUID]) -> Any:
    pictures = select(func.count()).where(Prediction.generation_id == Generation.id).scalar_subquery()
    return select(  # unscoped: whoever watches was let in by a request of their own
        Generation.id,
        Generation.revision,
        Generation.status,
        Generation.progress,
        Generation.queue_position,
        Generation.attempts,
        pictures,
        Generation.error,
    ).where(Generation.id.in_(generation_ids))


class Listener:
    """One who waits for news of one generation. `state` is the newest known, None once the row is gone.

    With `to_the_end` only the end is news.
    """

    def __init__(self, state: GenerationState, final_only: bool) -> None:
        self.generation_id, self.revision = state.generation_id, state.revision
        self.state: GenerationState | None = state
        self._final_only = final_only
        self.closed = False
        """Whether no more news will come, because the process ends."""
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return as soon as there is news, at the latest after these seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    def notify(self, state: GenerationState | None) -> None:
        """Give the watcher a state, unless a later one is known already."""
        if state is not None and state.revision <= self.revision:
            return
        self.state = state
        self.revision = state.revision if state is not None else self.revision
        if not self._final_only or state is None or state.is_final:
            self._changed.set()

    def close(self) -> None:
        """Let the watcher go."""
        self.closed = True
        self._changed.set()


class ChangeHub:
    """All who wait in this process. Open between `open` and `close`; otherwise nobody can wait."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._listeners: dict[UUID, set[Listener]] = {}
        self._counts: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin, on the event loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._wakeup = asyncio.Event()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="watcher")
        pubsub.CHANGES.subscribe(self._on_change)

    def close(self) -> None:
        """Let everybody go; may be called from any thread."""
        self._call_threadsafe(self._close_all)

    @property
    def is_open(self) -> bool:
        """Whether the loop that runs is the one that was opened: a WSGI host's is not."""
        return self._loop is not None and self._loop is asyncio.get_running_loop()

    def has_capacity(self, account: str) -> bool:
        """Whether one more may wait, and one more of this account."""
        return self._counts.total() < MAX_LISTENERS and self._counts[account] < MAX_LISTENERS_PER_ACCOUNT

    @contextmanager
    def subscribe(self, state: GenerationState, account: str, final_only: bool = False) -> Iterator[Listener]:
        """Be told of all that is later than `state`, or of the end only, for as long as the block lasts."""
        watcher = Listener(state, final_only)
        self._listeners.setdefault(state.generation_id, set()).add(watcher)
        self._counts[account] += 1
        self._ensure_polling()
        try:
            yield watcher
        finally:
            others = self._listeners[state.generation_id]
            others.discard(watcher)
            if not others:
                del self._listeners[state.generation_id]
            self._counts[account] -= 1
            if not self._counts[account]:
                del self._counts[account]

    def __len__(self) -> int:
        return self._counts.total()

    def watched_ids(self) -> set[UUID]:
        """The generations that somebody waits for."""
        return set(self._listeners)

    def _ensure_polling(self) -> None:
        if self._loop is not None and (self._poller is None or self._poller.done()):
            # A context of its own: the poller works for all, not for the request that came first.
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
            one: min(watcher.revision for watcher in change_hub)
            for one, change_hub in self._listeners.items()
        }
        if not known or self._loop is None:
            return
        try:
            changed = await self._loop.run_in_executor(self._reader, load_changed, self._transaction, known)
        except SQLAlchemyError as error:
            logger.error("what is watched could not be read, it is tried again: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            return
        except Exception:
            logger.exception("what is watched could not be read, it is tried again")
            await asyncio.sleep(RETRY_SECONDS)
            return
        for generation_id, state in changed.items():
            for watcher in list(self._listeners.get(generation_id, ())):
                watcher.notify(state)
            # Each may wake a hundred who have something to send: others shall get their turn in between.
            await asyncio.sleep(0)

    def _on_change(self) -> None:
        self._call_threadsafe(self._wakeup.set)

    def _call_threadsafe(self, callback: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None:
            # A loop that is closed has nobody left who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(callback)

    def _close_all(self) -> None:
        self._loop = None
        pubsub.CHANGES.unsubscribe(self._on_change)
        for watchers in self._listeners.values():
            for watcher in watchers:
                watcher.close()
        self._reader.shutdown(wait=False)
