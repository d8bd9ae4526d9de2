"""Share a fixed amount of something, such as memory, between threads that need different parts of it.

This module knows nothing of what is shared. It imports no other package of the project.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CHECK_SECONDS = 0.5
"""How often a waiting thread calls its `check`."""


class WeightedSemaphore:
    """A counting semaphore of which each thread takes as much as its work weighs.

    The thread that has waited longest is next, also if a lighter one could start before it: so heavy work is
    not delayed for ever. Work that is heavier than the total runs alone. A thread that holds a part takes no
    further one, so it cannot wait for itself: its outermost block decides.

    Args:
        total: The sum of the weights that are held at the same time.
    """

    def __init__(self, total: int) -> None:
        self._total, self._taken = total, 0
        # The threads that wait, the one that has waited longest first.
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()
        self._thread = threading.local()

    def resize(self, total: int) -> None:
        """Change the total. Parts that are held stay held."""
        with self._changed:
            self._total = total
            self._changed.notify_all()

    @contextmanager
    def hold(self, weight: int, check: Callable[[], None] | None = None) -> Iterator[None]:
        """Wait until there is room for this weight, and hold it for the block.

        Args:
            weight: How much of the total the block needs.
            check: Called twice a second while the thread waits. If it raises, the wait ends. It must not
                block.
        """
        if getattr(self._thread, "is_holding", False):
            yield
            return
        self._take(weight, check)
        self._thread.is_holding = True
        try:
            yield
        finally:
            self._thread.is_holding = False
            with self._changed:
                self._taken -= weight
                self._changed.notify_all()

    def _take(self, weight: int, check: Callable[[], None] | None) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not (self._waiting[0] is ticket and self._has_room(weight)):
                    self._changed.wait(CHECK_SECONDS if check else None)
                    if check:
                        check()
                self._taken += weight
            finally:
                self._waiting.remove(ticket)
                # The next one may fit, too.
                self._changed.notify_all()

    def _has_room(self, weight: int) -> bool:
        return not self._taken or self._taken + weight <= self._total
