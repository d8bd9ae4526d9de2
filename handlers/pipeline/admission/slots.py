"""Slots for slow work outside of a transaction: calls of other servers, and files that are decoded or stored.

It knows no operation. The threads that serve requests have slots in `wsgi_bridge`, and waits for row locks in
`lock_waits`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive

from db.errors import TooManyConcurrentRequests
from handlers.common.context import current_services
from handlers.contract.errors import ServiceUnavailable
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.disconnects import run_until_disconnected
from studio.infrastructure.fair_slots import FairSlots, current_requester
from studio.media.memory_gate import MAX_WAIT_SECONDS


@contextmanager
def hold_fetch_slot(detail: str) -> Iterator[None]:
    """Hold a slot for requests to other servers within the block.

    Other servers may be slow, so only half of the request threads may wait for them: half of these for one
    account, and one less for one address.

    Args:
        detail: What the client learns if its account has too many.

    Raises:
        TooManyConcurrentRequests: The account has all slots that it can have.
        ServiceUnavailable: All slots are in use, or the address has all that it can have.
    """
    slots, requester = current_services().fetch_slots, current_requester()
    if not slots.try_take(requester):
        if slots.count_held(requester.owner) >= slots.per_owner:
            raise TooManyConcurrentRequests(detail, limit=Limit.FETCH_SLOTS)
        raise ServiceUnavailable(Limit.FETCH_SLOTS)
    try:
        yield
    finally:
        slots.release(requester)


@dataclass(frozen=True)
class SlottedWork:
    """A kind of slow work that takes a slot and a thread, and waits for both on the event loop.

    Attributes:
        limit: What the log names if a request gets no slot.
        slots: The slots.
        pool: As many threads as slots, so that work with a slot never waits for a thread.
    """

    limit: Limit
    slots: FairSlots
    pool: ThreadPoolExecutor

    async def run(self, receive: Receive, function: Callable[[], Any]) -> Any:
        """Return the result of a function that needs a slot.

        Raises:
            ServiceUnavailable: No slot was free in time.
            ClientDisconnected: The client closed the connection during the wait.
        """
        future = await run_until_disconnected(receive, self._start(function))
        return await asyncio.wrap_future(future)

    async def _start(self, function: Callable[[], Any]) -> Future[Any]:
        """Call a function in a thread as soon as the requester has a slot."""
        requester, slots = current_requester(), self.slots
        if not slots.try_take(requester) and not await slots.take(requester, MAX_WAIT_SECONDS):
            raise ServiceUnavailable(self.limit)
        try:
            future = self.pool.submit(contextvars.copy_context().run, function)
        except BaseException:
            slots.release(requester)
            raise
        # Not when the request ends: work that was started cannot be stopped.
        future.add_done_callback(lambda _: slots.release(requester))
        return future
