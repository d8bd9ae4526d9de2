"""Count requests in the memory of this process; `redis_store` counts for all processes.

A lost count only allows a client a few more requests, so memory and Redis are reliable enough. Does not use
the database.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from studio.rate_limits.limits import LimitUsage, NamedLimit

MAX_COUNTS = 100_000
"""Counts in memory, about 20 MB. The least recently used count is dropped first."""


class RateLimitStore(Protocol):
    """Where counts are stored."""

    def consume(self, limits: Sequence[NamedLimit], now: int) -> list[LimitUsage]:
        """Take one unit of each limit, until one is exhausted, at `now` in milliseconds since 1970.

        It may block, for less than a second.
        """

    async def consume_async(self, limits: Sequence[NamedLimit], now: int) -> list[LimitUsage]:
        """Do the same without blocking the event loop."""

    async def close(self) -> None:
        """Close the connection of the running event loop, if there is one."""


class MemoryStore:
    """Counts in the memory of this process."""

    def __init__(self, max_counts: int = MAX_COUNTS) -> None:
        self._max_counts = max_counts
        self._states: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def consume(self, limits: Sequence[NamedLimit], now: int) -> list[LimitUsage]:
        """Take one unit of each limit, until one is exhausted. Takes microseconds and does no I/O."""
        usages: list[LimitUsage] = []
        for policy, name in limits:
            key = (policy.name, name)
            with self._lock:
                # Removed and inserted again, so that the least recently used count comes first.
                self._states[key], usage = policy.consume(self._states.pop(key, 0), now)
                if len(self._states) > self._max_counts:
                    self._states.popitem(last=False)
            usages.append(usage)
            if not usage.allowed:
                break
        return usages

    async def consume_async(self, limits: Sequence[NamedLimit], now: int) -> list[LimitUsage]:
        """Do the same."""
        return self.consume(limits, now)

    async def close(self) -> None:
        """Do nothing: there is no connection."""
