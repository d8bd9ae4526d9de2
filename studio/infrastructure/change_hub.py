"""Notify waiting requests when what they wait for changes, with one database query per round and kind.

The hub lives on the event loop and reads in a thread of its own. It holds no connection between rounds and
does nothing while no request waits. The caller has checked the permission to see the state; the module knows
neither HTTP nor what is watched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import Context
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from studio.infrastructure import pubsub
from studio.infrastructure.held_counts import HeldCounts

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.3
MIN_POLL_SECONDS = 0.05
"""The shortest pause between two rounds, for times of constant changes."""
RETRY_SECONDS = 2.0
MAX_LISTENERS = 1_000
MAX_LISTENERS_PER_ACCOUNT = 250
"""One account cannot use up the listeners of all others."""
_TOPICS = (pubsub.CHANGES, pubsub.WEBHOOKS)

Transaction = Callable[[bool], AbstractContextManager[Any]]
"""Opens a transaction; False opens one for reading."""


class Watched(Protocol):
    """What requests wait for, as plain values of one moment."""

    @property
    def watched_id(self) -> UUID:
        """The id, unique among the states of its class."""

    @property
    def revision(self) -> int:
        """A number that grows with each change."""

    @property
    def is_final(self) -> bool:
        """Whether requests that wait for the end are to be answered."""

    @staticmethod
    def load_changed(transaction: Transaction, known: Mapping[UUID, int]) -> Mapping[UUID, Watched | None]:
        """Return the state of each id that has changed, None for one that was deleted.

        Args:
            transaction: Opens a transaction.
            known: The last known revision by id.
        """


State = TypeVar("State", bound=Watched)


class Listener(Generic[State]):
    """A request that waits for changes of one thing.

    Attributes:
        revision: The last known revision.
        state: The last known state; None once the thing is deleted.
        closed: Whether no more changes will come, because the process ends.
    """

    def __init__(self, state: State, final_only: bool) -> None:
        self.revision = state.revision
        self.state: State | None = state
        self._final_only = final_only
        self.closed = False
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return after a change, at the latest after these seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    def notify(self, state: State | None) -> None:
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
        self._listeners: dict[tuple[type[Watched], UUID], set[Listener[Any]]] = {}
        self._counts = HeldCounts()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Open the hub on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._wakeup = asyncio.Event()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="watcher")
        for topic in _TOPICS:
            topic.subscribe(self._on_change)

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
    def subscribe(self, state: State, account: str, final_only: bool = False) -> Iterator[Listener[State]]:
        """Listen for changes after `state`, or for the final state only, within the block."""
        listener, key = Listener(state, final_only), (type(state), state.watched_id)
        self._listeners.setdefault(key, set()).add(listener)
        self._counts.add(account)
        self._ensure_polling()
        try:
            yield listener
        finally:
            listeners = self._listeners[key]
            listeners.discard(listener)
            if not listeners:
                del self._listeners[key]
            self._counts.add(account, -1)

    def __len__(self) -> int:
        return self._counts.total()

    def watched_ids(self) -> set[UUID]:
        """Return the ids of what has listeners."""
        return {watched_id for _, watched_id in self._listeners}

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
        known: dict[type[Watched], dict[UUID, int]] = {}
        for (kind, watched_id), listeners in self._listeners.items():
            oldest = min(listener.revision for listener in listeners)
            known.setdefault(kind, {})[watched_id] = oldest
        for kind, revisions in known.items():
            await self._poll_kind(kind, revisions)

    async def _poll_kind(self, kind: type[Watched], known: Mapping[UUID, int]) -> None:
        if self._loop is None:
            return
        try:
            changed = await self._loop.run_in_executor(
                self._reader, kind.load_changed, self._transaction, known
            )
        except SQLAlchemyError as error:
            logger.error("changes could not be read, retrying: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            return
        except Exception:
            logger.exception("changes could not be read, retrying")
            await asyncio.sleep(RETRY_SECONDS)
            return
        for watched_id, state in changed.items():
            for listener in list(self._listeners.get((kind, watched_id), ())):
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
        for topic in _TOPICS:
            topic.unsubscribe(self._on_change)
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.close()
        self._reader.shutdown(wait=False)
