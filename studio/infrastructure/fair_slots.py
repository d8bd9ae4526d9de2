"""Share a fixed number of slots fairly between accounts and addresses, for threads and for any event loop.

This module knows neither HTTP nor what a slot is used for. It imports nothing of the project but the counts.
`docs/decisions/0007-turns-by-account-and-address.md` says why addresses wait and are not rejected.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from studio.infrastructure.held_counts import HeldCounts

MAX_TURNS = 10_000
"""The last turns of as many owners and addresses are remembered while tasks wait."""
CONTENDED_SECONDS = 2.0
"""An owner has to leave more slots to others while another owner took one within this time."""


class Requester(NamedTuple):
    """The owner of some work, and the address that it was requested from.

    The owner is an account, or the address itself for a request without a credential.
    """

    owner: str
    address: str

    @classmethod
    def of(cls, name: str) -> Requester:
        """Return a requester that is its own address: one without a credential, or work without a client."""
        return cls(name, name)


def account_name(user_id: object) -> str:
    """Return the name of an account in a `Requester`."""
    return f"account {user_id}"


_requester: ContextVar[Requester | None] = ContextVar("requester", default=None)


def set_current_requester(requester: Requester) -> None:
    """Set the requester that the running request or job takes its slots for."""
    _requester.set(requester)


def current_requester() -> Requester:
    """Return the requester of the running request or job. Elsewhere, each thread is its own requester."""
    return _requester.get() or Requester.of(f"thread {threading.get_ident()}")


class FairSlots:
    """A counting semaphore of which one owner, and one address, hold a part at most.

    A free slot goes to the waiting requester whose owner and address have waited longest for a turn. So an
    account with many tasks, or an address with many accounts, delays another one by one task.

    Args:
        total: The number of slots.
        per_owner: The number of slots that one owner can hold at the same time.
        per_address: The number of slots that all owners at one address can hold; all slots by default.
        per_contended_owner: The number that one owner can hold if another owner took a slot within the last
            two seconds; `per_owner` by default.
    """

    def __init__(
        self,
        total: int,
        per_owner: int,
        per_address: int | None = None,
        per_contended_owner: int | None = None,
    ) -> None:
        self.per_owner = per_owner
        self.per_address = total if per_address is None else per_address
        self.per_contended_owner = per_owner if per_contended_owner is None else per_contended_owner
        # The last two owners that took a slot, the latest one first, and when each took its last one.
        self._latest = self._other = ("", float("-inf"))
        self._free = total
        # By owner and by address.
        self._held = HeldCounts()
        # While a slot is free, each waiting requester holds its maximum.
        self._waiting: dict[Requester, deque[Future[None]]] = {}
        # When an owner or address had its last turn: the number of that turn.
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._lock = threading.Lock()

    def count_held(self, name: str) -> int:
        """Return how many slots an owner or address holds."""
        with self._lock:
            return self._held[name]

    def count_waiting(self, name: str) -> int:
        """Return how many tasks of an owner or address wait."""
        with self._lock:
            return sum(
                not future.done()
                for requester, futures in self._waiting.items()
                if name in requester
                for future in futures
            )

    def has_waiting(self) -> bool:
        """Return whether a task waits."""
        with self._lock:
            return any(not future.done() for futures in self._waiting.values() for future in futures)

    def try_take(self, requester: Requester) -> bool:
        """Take a slot if the requester can have one now; return whether it was taken."""
        with self._lock:
            return self._try_take(requester)

    async def take(self, requester: Requester, seconds: float) -> bool:
        """Wait for a slot on the event loop; return False if none was free within these seconds."""
        future = self._request(requester)
        try:
            async with asyncio.timeout(seconds):
                waiting = asyncio.wrap_future(future)
                while not (await asyncio.wait((waiting,), timeout=CONTENDED_SECONDS))[0]:
                    self._serve_uncontended()
        except BaseException as error:
            # The slot may have been handed over in the same moment.
            if not future.cancel():
                self.release(requester)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    @contextmanager
    def hold(self, requester: Requester, seconds: float | None = None) -> Iterator[None]:
        """Wait for a slot in a thread, and hold it for the block.

        Args:
            requester: The requester of the slot.
            seconds: How long to wait, None for any time.

        Raises:
            TimeoutError: No slot was free within these seconds.
        """
        future = self._request(requester)
        ends_at = float("inf") if seconds is None else time.monotonic() + seconds
        try:
            while not wait((future,), min(CONTENDED_SECONDS, ends_at - time.monotonic())).done:
                if time.monotonic() >= ends_at:
                    raise TimeoutError
                self._serve_uncontended()
        except BaseException:
            # The slot may have been handed over in the same moment.
            if not future.cancel():
                self.release(requester)
            raise
        try:
            yield
        finally:
            self.release(requester)

    def release(self, requester: Requester) -> None:
        """Return a slot, which goes to the next waiting requester."""
        with self._lock:
            self._free += 1
            for name in set(requester):
                self._held.add(name, -1)
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        """Give the free slots to those that wait and can have them; the caller holds the lock."""
        while self._waiting and self._free and (waiting := self._find_next()) is not None:
            self._serve(waiting)
        if not self._waiting:
            self._turns.clear()

    def _serve_uncontended(self) -> None:
        """Give free slots to owners that can have more now, as no other one took a slot for a time."""
        with self._lock:
            self._serve_waiting()

    def _request(self, requester: Requester) -> Future[None]:
        """Return a future that is done when the slot is taken. A canceled one takes none."""
        future: Future[None] = Future()
        with self._lock:
            if self._try_take(requester):
                future.set_result(None)
            else:
                self._waiting.setdefault(requester, deque()).append(future)
                for name in requester:
                    # The turn of a newcomer comes after those of all that wait already.
                    self._turns.setdefault(name, self._turn)
                if len(self._turns) > MAX_TURNS:
                    waiting = {name for other in self._waiting for name in other}
                    self._turns = {name: turn for name, turn in self._turns.items() if name in waiting}
        return future

    def _try_take(self, requester: Requester) -> bool:
        if not self._free or not self._has_capacity(requester):
            return False
        self._free -= 1
        if requester.owner != self._latest[0]:
            self._other = self._latest
        self._latest = (requester.owner, time.monotonic())
        # Not twice if the owner is the address.
        for name in set(requester):
            self._held.add(name)
        return True

    def _has_capacity(self, requester: Requester) -> bool:
        owner, address = requester
        return self._held[owner] < self._owner_limit(owner) and self._held[address] < self.per_address

    def _owner_limit(self, owner: str) -> int:
        _, other_taken_at = self._other if owner == self._latest[0] else self._latest
        is_contended = time.monotonic() - other_taken_at < CONTENDED_SECONDS
        return self.per_contended_owner if is_contended else self.per_owner

    def _find_next(self) -> Requester | None:
        """Return the waiting requester that gets the next free slot; None if none may have one."""
        waiting = filter(self._has_capacity, self._waiting)
        # The first one of several with the same turns has waited longest.
        return min(waiting, key=self._latest_turns, default=None)

    def _latest_turns(self, requester: Requester) -> tuple[int, int]:
        """Return the last turns of owner and address, the later one first.

        An account gains no turn by many addresses, and an address none by many accounts.
        """
        owner, address = (self._turns[name] for name in requester)
        return (owner, address) if owner > address else (address, owner)

    def _serve(self, requester: Requester) -> None:
        futures = self._waiting[requester]
        while futures:
            future = futures.popleft()
            # False if the task has given up.
            if future.set_running_or_notify_cancel():
                self._try_take(requester)
                self._turn += 1
                self._turns.update(dict.fromkeys(requester, self._turn))
                future.set_result(None)
                break
        if not futures:
            del self._waiting[requester]


def share_threads(total: int, *, contended_share: int = 2) -> FairSlots:
    """Return slots for threads, which may be held for seconds: one stays free for other addresses.

    One owner gets half of them. Threads that compute share a core, so each slows the others down: while there
    are other owners, an owner gets one part of `contended_share`.
    """
    return FairSlots(total, max(1, total // 2), max(1, total - 1), max(1, total // contended_share))
