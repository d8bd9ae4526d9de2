"""Keep request threads free while other requests wait for row locks.

A request that waits for a row lock holds its thread. Requests for the same row could hold all threads, and
other clients would wait as long as they do. This module knows no operation and no row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from db.session import limit_lock_wait

SHORT_WAIT_MILLISECONDS = 1_000
"""Far longer than a lock is usually held, also when all threads want the same row."""


class LockWaitShare:
    """Lets half of the request threads wait for row locks as long as the engine allows, the others briefly.

    A request whose short wait ends without the lock is answered with 503 and `Retry-After`. On SQLite there
    are no row locks.

    Args:
        threads: the number of request threads.
    """

    def __init__(self, threads: int) -> None:
        self._slots = threading.BoundedSemaphore(max(1, threads // 2))

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Limit the lock waits of the running transaction, which ends after the block."""
        has_slot = self._slots.acquire(blocking=False)
        try:
            if not has_slot:
                limit_lock_wait(SHORT_WAIT_MILLISECONDS)
            yield
        finally:
            if has_slot:
                self._slots.release()
