"""Limit the bytes of request bodies that this process holds, and the time that it spends on wrong ones.

A body counts while it arrives and until its request ends: large ones are temporary files, with which many
slow clients could fill a disk. JSON bodies are in memory, so one account has two large ones at most. This
module knows no operation. It runs on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from anyio import to_thread

from db.errors import TooManyConcurrentRequests
from handlers.contract.errors import RequestError, ServiceUnavailable
from handlers.contract.request_bodies import Judged
from handlers.pipeline.admission.limits import Limit
from studio.infrastructure.fair_slots import Requester, current_requester
from studio.infrastructure.held_counts import HeldCounts

LARGE_JSON_BYTES = 1_000_000
"""Only operations with a limit of their own accept larger JSON bodies."""
MAX_LARGE_JSON_BODIES = 2
REST = 2
"""How many times as long as its wrong body took an account waits before its next body is judged."""


class TooManyBodyBytes(ServiceUnavailable):
    """The unfinished bodies of one account, of one address or of all clients exceed their limit."""

    code = "too_many_body_bytes"
    default_detail = "The server is receiving too many bytes: send fewer large bodies at the same time"

    def __init__(self) -> None:
        super().__init__(Limit.BODY_BYTES)


class UnfinishedBodies:
    """Counts the bytes of unfinished request bodies.

    Args:
        per_account: The limit of one account, in bytes. API keys count for their user.
        per_address: The limit of one client address.
        total: The limit of this process.
    """

    def __init__(self, per_account: int, per_address: int, total: int) -> None:
        self._per_account, self._per_address, self._total = per_account, per_address, total
        self._held, self._large = HeldCounts(), HeldCounts()

    @contextmanager
    def track(self, requester: Requester, is_file: bool = True) -> Iterator[Callable[[int], None]]:
        """Yield the function that counts the bytes of one body; they are released at the end of the block.

        The function raises TooManyBodyBytes when a limit is exceeded, and TooManyConcurrentRequests when the
        account has too many large bodies that are not files.
        """
        # The address last, because it is the owner of a request without a credential.
        limits = {
            "all": self._total,
            requester.owner: self._per_account,
            requester.address: self._per_address,
        }
        size, is_large = 0, False

        def count(received: int) -> None:
            nonlocal size, is_large
            size += received
            # Count for each holder, also after a limit is exceeded: the end of the block releases all.
            held = [(self._held.add(holder, received), limit) for holder, limit in limits.items()]
            if any(count > limit for count, limit in held):
                raise TooManyBodyBytes
            if size > LARGE_JSON_BYTES and not is_file and not is_large:
                is_large = True
                if self._large.add(requester.owner) > MAX_LARGE_JSON_BODIES:
                    raise TooManyConcurrentRequests(
                        f"{MAX_LARGE_JSON_BODIES} requests with more than 1 MB of JSON are in progress: wait "
                        "until one of them has ended",
                        limit=Limit.LARGE_JSON,
                    )

        try:
            yield count
        finally:
            for holder in limits:
                self._held.add(holder, -size)
            if is_large:
                self._large.add(requester.owner, -1)


class BodyTurns:
    """Lets one thread parse and judge the bodies of this process, and each account use a part of its time.

    Python runs one thread at a time. With several busy ones, the event loop waits for each of them again and
    again: 15 wrong batches of 300 kB delayed other requests by seconds. Accounts take turns, and one that
    sends wrong bodies rests after each of them.
    """

    def __init__(self) -> None:
        # Of the owners whose bodies are judged or wait.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, judge: Callable[[], Judged]) -> Judged:
        """Call a function that parses or judges a body of the current requester, and return its result.

        Raises:
            RequestError: Raised by the function.
        """
        async with self._find_lock(current_requester().owner):
            try:
                async with self._find_lock(""):
                    started = time.monotonic()
                    body, violations = await to_thread.run_sync(judge)
            except RequestError:
                await _rest(time.monotonic() - started)
                raise
            if violations:
                await _rest(time.monotonic() - started)
            return body, violations

    async def rest(self, seconds: float) -> None:
        """Let the current requester rest after a wrong file, whose authorization took these seconds."""
        async with self._find_lock(current_requester().owner):
            await _rest(seconds)

    def _find_lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


async def _rest(seconds: float) -> None:
    await asyncio.sleep(REST * seconds)
