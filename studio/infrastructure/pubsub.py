"""In-process publish and subscribe: wake up threads of this process when there is new work or a change.

Subscribers also poll, so a notification that is lost only costs time. Imports no other package of the
project.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakSet


class Topic:
    """A kind of notification and its subscribers in this process."""

    def __init__(self) -> None:
        self._events: WeakSet[threading.Event] = WeakSet()
        self._subscribers: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def listen(self) -> threading.Event:
        """Return a new event that every notification sets. Keep a reference to it as long as you listen."""
        event = threading.Event()
        with self._lock:
            self._events.add(event)
        return event

    def subscribe(self, callback: Callable[[], object]) -> None:
        """Call `callback` at every notification, in the thread that notifies."""
        with self._lock:
            self._subscribers.append(callback)

    def unsubscribe(self, callback: Callable[[], object]) -> None:
        """Stop calling `callback`."""
        with self._lock:
            self._subscribers.remove(callback)

    def notify(self) -> None:
        """Set all events and call all subscribers."""
        with self._lock:
            subscribers = list(self._subscribers)
            for event in list(self._events):
                event.set()
        for callback in subscribers:
            callback()


GENERATIONS = Topic()
"""A generation or a cut-out may be available to workers."""
CHANGES = Topic()
"""A generation may have changed."""
WEBHOOKS = Topic()
"""A webhook delivery may be due."""
EXPORTS = Topic()
"""An export may be pending."""
DELIVERIES = Topic()
"""An export may have to be delivered to its destination."""
EMAILS = Topic()
"""An e-mail may be queued."""
IMPORTS = Topic()
"""An import may be pending."""
