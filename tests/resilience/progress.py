"""Wait for work on a machine that may be busy: as long as something moves, and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

State = TypeVar("State")
IDLE_SECONDS = 600.0
"""Longer than the second pause between the attempts to deliver a webhook or a file (300 s)."""
PAUSE_SECONDS = 0.5


class Stalled(Exception):
    """Nothing has moved for too long; the message says what was waited for and how far it got."""


def wait_while_moving(
    read: Callable[[], State],
    is_done: Callable[[State], bool],
    description: str,
    idle_seconds: float = IDLE_SECONDS,
) -> State:
    """Read a state until it is done, however long that takes, and return it.

    Args:
        read: Returns the state. Each change of it counts as movement.
        is_done: Whether a state is what is waited for.
        description: What is waited for.
        idle_seconds: The longest time without a change.

    Raises:
        Stalled: The state has not changed for `idle_seconds`.
    """
    state = read()
    moved_at = time.monotonic()
    while not is_done(state):
        if time.monotonic() - moved_at > idle_seconds:
            raise Stalled(f"nothing has moved for {idle_seconds:g} s; still not: {description} ({state})")
        time.sleep(min(PAUSE_SECONDS, idle_seconds / 10))
        now = read()
        if now != state:
            state, moved_at = now, time.monotonic()
    return state
