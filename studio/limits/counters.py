"""Counts of all requests in the memory of this process; `shared_counters.py` has those of all processes.

Nothing here touches the database. A count that is lost lets somebody ask a little more, so memory and Redis
are good enough.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

from studio.limits.policies import Policy, Standing

MOST_COUNTS = 100_000
"""Counts kept in memory, some 20 MB; the one that was not asked for longest goes first."""


class Counters(Protocol):
    """Where counts are kept."""

    @property
    def may_wait(self) -> bool:
        """Whether spending does I/O, which must not happen on an event loop."""

    def spend(self, policy: Policy, subject: str, now: int) -> Standing:
        """Take one unit of what `subject` has of a limit, at `now` in milliseconds since 1970."""


class MemoryCounters:
    """Counts of this process alone."""

    may_wait = False

    def __init__(self, most: int = MOST_COUNTS) -> None:
        self._most = most
        self._states: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._guard = threading.Lock()

    def spend(self, policy: Policy, subject: str, now: int) -> Standing:
        """Take one unit; microseconds, without I/O."""
        key = (policy.name, subject)
        with self._guard:
            # Taken out and put in again, so that the oldest is always the first.
            self._states[key], standing = policy.spend(self._states.pop(key, 0), now)
            if len(self._states) > self._most:
                self._states.popitem(last=False)
        return standing
