"""Wakes threads of this process when there is something new for them.

A lost signal loses nothing: they look by themselves too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakSet


class Topic:
    """One kind of news, and everybody in this process who waits for it."""

    def __init__(self) -> None:
        self._events: WeakSet[threading.Event] = WeakSet()
        self._subscribers: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def listen(self) -> threading.Event:
        """A new event that is set whenever there is news; keep it as long as you listen."""
        event = threading.Event()
        with self._lock:
            self._events.add(event)
        return event

    def subscribe(self, callback: Callable[[], object]) -> None:
        """Call `callback`, in whatever thread, whenever there is news; until `forget`."""
        with self._lock:
            self._subscribers.append(callback)

    def unsubscribe(self, callback: Callable[[], object]) -> None:
        """Call `callback` no more."""
        with self._lock:
            self._subscribers.remove(callback)

    def notify(self) -> None:
        """Tell everybody who listens."""
        with self._lock:
            called = list(self._subscribers)
            for event in list(self._events):
                event.set()
        for callback in called:
            callback()


GENERATIONS = Topic()
"""There may be a generation to work on."""
CHANGES = Topic()
"""A generation may have changed."""
WEBHOOKS = Topic()
"""There may be a message to send."""
EXPORTS = Topic()
"""There may be an archive to write."""

listen, notify_workers = GENERATIONS.listen, GENERATIONS.notify
