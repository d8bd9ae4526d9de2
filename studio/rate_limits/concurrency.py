"""Count the requests that run at the same time, per account or address, in this process."""

from __future__ import annotations

import threading

from studio.infrastructure.held_counts import HeldCounts


class ConcurrencyLimiter:
    """Counts running requests by owner; `limit` is how many one owner may have."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._running = HeldCounts()
        # Behind a WSGI server, requests may run on several event loops.
        self._lock = threading.Lock()

    def try_start(self, owner: str, part: str | None = None) -> bool:
        """Count the start of a request, unless the owner is at its limit; return whether it was counted.

        Args:
            owner: The name of the owner.
            part: A name for some of its requests, all of which together may be half of them.
        """
        limits = {owner: self.limit}
        if part is not None:
            limits[part] = max(1, self.limit // 2)
        with self._lock:
            if any(self._running[name] >= limit for name, limit in limits.items()):
                return False
            for name in limits:
                self._running.add(name)
            return True

    def finish(self, owner: str, part: str | None = None) -> None:
        """Count the end of a request."""
        with self._lock:
            for name in (owner,) if part is None else (owner, part):
                self._running.add(name, -1)

    def count_running(self, owner: str) -> int:
        """Return the number of running requests of an owner."""
        with self._lock:
            return self._running[owner]
