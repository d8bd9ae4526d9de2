"""Count requests in the memory of this process; `redis_store` counts for all processes.

A lost count only allows a client a few more requests, so memory and Redis are reliable enough. Does not use
the database.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

from studio.rate_limits.limits import LimitUsage, QuotaPolicy

MAX_COUNTS = 100_000
"""Counts in memory, about 20 MB. The least recently used count is dropped first."""


class RateLimitStore(Protocol):
    """Where counts are stored."""

    @property
    def is_blocking(self) -> bool:
        """Whether `consume` does I/O, which must not run on an event loop."""

    def consume(self, policy: QuotaPolicy, name: str, now: int) -> LimitUsage:
        """Take one unit of the quota of a name, at `now` in milliseconds since 1970."""


class MemoryStore:
    """Counts in the memory of this process."""

    is_blocking = False

    def __init__(self, max_counts: int = MAX_COUNTS) -> None:
        self._max_counts = max_counts
        self._states: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def consume(self, policy: QuotaPolicy, name: str, now: int) -> LimitUsage:
        """Take one unit. Takes microseconds and does no I/O."""
        key = (policy.name, name)
        with self._lock:
            # Removed and inserted again, so that the least recently used count comes first.
            self._states[key], usage = policy.consume(self._states.pop(key, 0), now)
            if len(self._states) > self._max_counts:
                self._states.popitem(last=False)
        return usage
