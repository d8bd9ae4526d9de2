"""Counts of all requests in the memory of this process; `shared_counters.py` has those of all processes.

Nothing here touches the database. A count that is lost lets somebody ask a little more, so memory and Redis
are good enough.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

from studio.rate_limits.limits import LimitUsage, QuotaPolicy

MAX_COUNTS = 100_000
"""Counts kept in memory, some 20 MB; the one that was not asked for longest goes first."""


class RateLimitStore(Protocol):
    """Where counts are kept."""

    @property
    def is_blocking(self) -> bool:
        """Whether spending does I/O, which must not happen on an event loop."""

    def consume(self, policy: QuotaPolicy, subject: str, now: int) -> LimitUsage:
        """Take one unit of what `subject` has of a limit, at `now` in milliseconds since 1970."""


class MemoryStore:
    """Counts of this process alone."""

    is_blocking = False

    def __init__(self, max_counts: int = MAX_COUNTS) -> None:
        self._max_counts = max_counts
        self._states: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def consume(self, policy: QuotaPolicy, subject: str, now: int) -> LimitUsage:
        """Take one unit; microseconds, without I/O."""
        key = (policy.name, subject)
        with self._lock:
            # Taken out and put in again, so that the oldest is always the first.
            self._states[key], standing = policy.consume(self._states.pop(key, 0), now)
            if len(self._states) > self._max_counts:
                self._states.popitem(last=False)
        return standing
