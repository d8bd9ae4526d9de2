"""Keep request threads free while other requests wait for row locks.

A request that waits for a row lock holds its thread. Requests for the same row could hold all threads, and
other clients would wait as long as they do. So half of the threads may wait as long as the engine allows,
with a slot. Another request that finds a row locked for longer than 0.1 seconds is rolled back and gives
its thread back; `wsgi_bridge` serves it again when it has a slot. It is 503 if it gets none within 10
seconds, or if the row is still locked after the time of the engine.

Only the transactions of handlers are limited. Those that record attempts, denials or the end of an
idempotency key hold their locks for a few milliseconds. This module knows no operation and no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError

from db.engine import is_lock_timeout
from db.session import limit_lock_wait
from handlers.contract.errors import ServiceUnavailable
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.request_context import RequestContext
from studio.infrastructure.fair_slots import current_requester, share_threads

BRIEF_WAIT_MILLISECONDS = 100
"""A wait without a slot. Most locks are held for less, so most requests are served at the first attempt."""
LAST_WAIT_MILLISECONDS = 1_000
"""A wait without a slot for a request that is not served again: an attempt to sign in would count twice."""
SLOT_SECONDS = 10
"""How long a request waits for a slot, on the event loop."""


class RowLocked(ServiceUnavailable):
    """Another transaction holds the lock of a row, and the request may not wait for it now."""

    def __init__(self) -> None:
        super().__init__(Limit.ROW_LOCKED)


class LockWaits:
    """Limits how many request threads wait for row locks as long as the engine allows.

    Args:
        threads: the number of request threads.
    """

    def __init__(self, threads: int) -> None:
        self.slots = share_threads(max(1, threads // 2), contended_share=4)

    @contextmanager
    def limit(self, context: RequestContext, is_repeatable: bool) -> Iterator[bool]:
        """Limit the lock waits of the running transaction; yield whether the request may be served again.

        Args:
            context: the request.
            is_repeatable: whether the bridge can serve the request again.

        Raises:
            RowLocked: the wait without a slot has ended. The transaction must roll back.
        """
        requester = current_requester()
        if context.has_lock_slot:
            yield False
        elif self.slots.try_take(requester):
            try:
                yield False
            finally:
                self.slots.release(requester)
        else:
            limit_lock_wait(BRIEF_WAIT_MILLISECONDS if is_repeatable else LAST_WAIT_MILLISECONDS)
            try:
                yield is_repeatable
            except OperationalError as error:
                if not is_lock_timeout(error):
                    raise
                context.awaits_lock_slot = is_repeatable
                raise RowLocked() from error
