"""Count the requests that run at the same time, per account or address, in this process."""

from __future__ import annotations

import threading


class ConcurrencyLimiter:
    """Counts running requests by subject; `limit` is how many one subject may have."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # Only subjects with a running request.
        self._running: dict[str, int] = {}
        # Behind a WSGI server, requests may run on several event loops.
        self._lock = threading.Lock()

    def try_start(self, subject: str) -> bool:
        """Count the start of a request, unless the subject is at its limit; return whether it was counted."""
        with self._lock:
            running = self._running.get(subject, 0)
            if running >= self.limit:
                return False
            self._running[subject] = running + 1
            return True

    def finish(self, subject: str) -> None:
        """Count the end of a request."""
        with self._lock:
            running = self._running.pop(subject) - 1
            if running:
                self._running[subject] = running

    def count_running(self, subject: str) -> int:
        """Return the number of running requests of a subject."""
        with self._lock:
            return self._running.get(subject, 0)
