"""Count the requests of one server against its rate limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Self

from studio.infrastructure.settings import Settings
from studio.rate_limits.limits import LimitUsage, NamedLimit, QuotaPolicies
from studio.rate_limits.memory_store import MemoryStore, RateLimitStore


def now_ms() -> int:
    """Return the time in milliseconds since 1970, a clock that processes on several machines share."""
    return time.time_ns() // 1_000_000


class RateLimiter:
    """Counts requests against rate limits. `clock` returns milliseconds since 1970."""

    def __init__(
        self, policies: QuotaPolicies, store: RateLimitStore, clock: Callable[[], int] = now_ms
    ) -> None:
        self.policies, self.store, self.clock = policies, store, clock

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the limiter of these settings, which counts in Redis if a Redis server is configured."""
        return cls(QuotaPolicies.from_settings(settings), _build_store(settings.celery_broker_url))

    def consume(self, limits: Sequence[NamedLimit]) -> list[LimitUsage]:
        """Take one unit of each limit, until one is exhausted. May block: call it in a thread."""
        return self.store.consume(limits, self.clock())

    async def consume_async(self, limits: Sequence[NamedLimit]) -> list[LimitUsage]:
        """Do the same without blocking the event loop."""
        return await self.store.consume_async(limits, self.clock())


def _build_store(url: str | None) -> RateLimitStore:
    if url is None:
        return MemoryStore()
    # Imported here, because a server without Redis does not need its client.
    from studio.rate_limits.redis_store import RedisStore

    return RedisStore(url)
