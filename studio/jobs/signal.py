"""Wakes threads of this process when there is something new for them.

A lost signal loses nothing: they look by themselves too.
"""

from __future__ import annotations

import threading
from weakref import WeakSet


class Signal:
    """One kind of news, and everybody in this process who waits for it."""

    def __init__(self) -> None:
        self._waiting: WeakSet[threading.Event] = WeakSet()
        self._guard = threading.Lock()

    def listen(self) -> threading.Event:
        """A new event that is set whenever there is news; keep it as long as you listen."""
        event = threading.Event()
        with self._guard:
            self._waiting.add(event)
        return event

    def wake(self) -> None:
        """Tell everybody who listens."""
        with self._guard:
            for event in list(self._waiting):
                event.set()


GENERATIONS = Signal()
"""There may be a generation to work on."""
WEBHOOKS = Signal()
"""There may be a message to send."""
EXPORTS = Signal()
"""There may be an archive to write."""

listen, wake_workers = GENERATIONS.listen, GENERATIONS.wake
