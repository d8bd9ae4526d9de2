"""Wakes the workers of this process when there is new work.

A lost signal loses nothing: workers look by themselves too.
"""

from __future__ import annotations

import threading
from weakref import WeakSet

_waiting: WeakSet[threading.Event] = WeakSet()
_guard = threading.Lock()


def listen() -> threading.Event:
    """A new event that is set whenever there is new work; keep it as long as you listen."""
    event = threading.Event()
    with _guard:
        _waiting.add(event)
    return event


def wake_workers() -> None:
    """Tell every worker of this process that there may be work."""
    with _guard:
        for event in list(_waiting):
            event.set()
