"""Wakes threads of this process when there is something new for them.

A lost signal loses nothing: they look by themselves too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakSet


class Signal:
    """One kind of news, and everybody in this process who waits for it."""

    def __init__(self) -> None:
        self._waiting: WeakSet[threading.Event] = WeakSet()
        self._called: list[Callable[[], object]] = []
        self._guard = threading.Lock()

    def listen(self) -> threading.Event:
        """A new event that is set whenever there is news; keep it as long as you listen."""
        event = threading.Event()
        with self._guard:
            self._waiting.add(event)
        return event

    def call(self, callback: Callable[[], object]) -> None:
        """Call `callback`, in whatever thread, whenever there is news; until `forget`."""
        with self._guard:
            self._called.append(callback)

    def forget(self, callback: Callable[[], object]) -> None:
        """Call `callback` no more."""
        with self._guard:
            self._called.remove(callback)

    def wake(self) -> None:
        """Tell everybody who listens."""
        with self._guard:
            called = list(self._called)
            for event in list(self._waiting):
                event.set()
        for callback in called:
            callback()


GENERATIONS = Signal()
"""There may be a generation to work on."""
CHANGES = Signal()
"""A generation may have changed."""
WEBHOOKS = Signal()
"""There may be a message to send."""
EXPORTS = Signal()
"""There may be an archive to write."""

listen, wake_workers = GENERATIONS.listen, GENERATIONS.wake
