"""Count the requests that run at the same time, per account or address, in this process."""

from __future__ import annotations

import threading
from collections import Counter


class ConcurrencyLimiter:
    """Counts running requests by subject; `limit` is how many one subject may have."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._running: Counter[str] = Counter()
        # Behind a WSGI server, requests may run on several event loops.
        self._lock = threading.Lock()

    def try_start(self, subject: str) -> bool:
        """Count the start of a request, unless the subject is at its limit; return whether it was counted."""
        with self._lock:
            if self._running[subject] >= self.limit:
                return False
            self._running[subject] += 1
            return True

    def finish(self, subject: str) -> None:
        """Count the end of a request."""
        with self._lock:
            self._running[subject] -= 1
            if not self._running[subject]:
                del self._running[subject]

    def count_running(self, subject: str) -> int:
        """Return the number of running requests of a subject."""
        with self._lock:
            return self._running[subject]
