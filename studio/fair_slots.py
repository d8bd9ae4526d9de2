"""Share a fixed number of slots fairly between subjects, for threads and for coroutines of any event loop.

A subject is an account, or an address for requests without a credential. This module knows neither HTTP nor
what a slot is used for. It imports no other package of the project.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar

_subject: ContextVar[str | None] = ContextVar("subject", default=None)


def set_current_subject(subject: str) -> None:
    """Set the subject that the running request takes its slots for."""
    _subject.set(subject)


def current_subject() -> str:
    """Return the subject of the running request. Outside of a request, each thread is its own subject."""
    return _subject.get() or f"thread {threading.get_ident()}"


class FairSlots:
    """A counting semaphore of which one subject holds a part at most.

    A free slot goes to the waiting subjects in turn. So a subject that waits with many tasks delays another
    subject by one task, not by all of them.

    Args:
        total: The number of slots.
        per_subject: The number of slots that one subject can hold at the same time.
    """

    def __init__(self, total: int, per_subject: int) -> None:
        self.per_subject = per_subject
        self._free = total
        self._held: Counter[str] = Counter()
        # Ordered: the first subject is next. While a slot is free, each waiting subject holds its maximum.
        self._waiting: dict[str, deque[Future[None]]] = {}
        self._lock = threading.Lock()

    def count_held(self, subject: str) -> int:
        """Return how many slots a subject holds."""
        with self._lock:
            return self._held[subject]

    def count_waiting(self, subject: str) -> int:
        """Return how many tasks of a subject wait."""
        with self._lock:
            return sum(not future.done() for future in self._waiting.get(subject, ()))

    def try_take(self, subject: str) -> bool:
        """Take a slot if the subject can have one now; return whether it was taken."""
        with self._lock:
            return self._try_take(subject)

    async def take(self, subject: str, seconds: float) -> bool:
        """Wait for a slot on the event loop; return False if none was free within these seconds."""
        future = self._request(subject)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wrap_future(future)
        except BaseException as error:
            # The slot may have been handed over in the same moment.
            if not future.cancel():
                self.release(subject)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    @contextmanager
    def hold(self, subject: str, seconds: float | None = None) -> Iterator[None]:
        """Wait for a slot in a thread, and hold it for the block.

        Args:
            subject: The subject of the slot.
            seconds: How long to wait, None for any time.

        Raises:
            TimeoutError: No slot was free within these seconds.
        """
        future = self._request(subject)
        try:
            future.result(seconds)
        except BaseException:
            # The slot may have been handed over in the same moment.
            if not future.cancel():
                self.release(subject)
            raise
        try:
            yield
        finally:
            self.release(subject)

    def release(self, subject: str) -> None:
        """Return a slot, which goes to the next waiting subject."""
        with self._lock:
            self._free += 1
            self._held[subject] -= 1
            if not self._held[subject]:
                del self._held[subject]
            if self._waiting:
                self._hand_over()

    def _request(self, subject: str) -> Future[None]:
        """Return a future that is done when the slot is taken. A cancelled one takes none."""
        future: Future[None] = Future()
        with self._lock:
            if self._try_take(subject):
                future.set_result(None)
            else:
                self._waiting.setdefault(subject, deque()).append(future)
        return future

    def _try_take(self, subject: str) -> bool:
        if not self._free or self._held[subject] >= self.per_subject:
            return False
        self._free -= 1
        self._held[subject] += 1
        return True

    def _hand_over(self) -> None:
        for subject in list(self._waiting):
            if self._free and self._held[subject] < self.per_subject:
                self._serve_next(subject)

    def _serve_next(self, subject: str) -> None:
        futures = self._waiting.pop(subject)
        while futures:
            future = futures.popleft()
            # False if the task has given up.
            if future.set_running_or_notify_cancel():
                self._try_take(subject)
                future.set_result(None)
                break
        if futures:
            # At the end: the other subjects come first.
            self._waiting[subject] = futures
