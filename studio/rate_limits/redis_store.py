"""Counts of all requests in Redis, for all processes."""

from __future__ import annotations

import logging
import time
from typing import Any

import redis
from pyrate_limiter import Decision
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from studio.rate_limits.limits import ALGORITHM, LimitUsage, QuotaPolicy
from studio.rate_limits.memory_store import MemoryStore

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 0.25
RETRY_AFTER_SECONDS = 5.0
"""For how long a Redis that failed is not asked again."""


class RedisStore:
    """Counts of all processes, in Redis, by one round trip; in memory while Redis does not answer."""

    def __init__(self, url: str, memory: MemoryStore | None = None) -> None:
        self._memory = memory or MemoryStore()
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            # Once more at once: the connection may be left from before a restart.
            retry=Retry(NoBackoff(), 1),
        )
        self._script = ALGORITHM.redis_script()
        self._sha = ""
        self._retry_at = 0.0

    @property
    def is_blocking(self) -> bool:
        """Whether Redis will be asked."""
        return time.monotonic() >= self._retry_at

    def consume(self, policy: QuotaPolicy, subject: str, now: int) -> LimitUsage:
        """Take one unit; RedisError never leaves here."""
        if self.is_blocking:
            try:
                standing = self._consume_in_redis(policy, f"sartiq:limit:{policy.name}:{subject}", now)
            except RedisError as error:
                logger.warning("Redis is away, each process counts requests for itself: %s", error)
                self._retry_at = time.monotonic() + RETRY_AFTER_SECONDS
            else:
                if self._retry_at:
                    logger.info("Redis is back, requests are counted for all processes")
                    self._retry_at = 0.0
                return standing
        return self._memory.consume(policy, subject, now)

    def _consume_in_redis(self, policy: QuotaPolicy, key: str, now: int) -> LimitUsage:
        if not self._sha:
            self._sha = self._redis.script_load(self._script)
        # Twice the window: a count that has run out by then is as good as none.
        numbers = [now, 1, 2000 * policy.window, 1, *ALGORITHM.redis_args(policy.rates)]
        for _ in range(2):
            asking = self._redis.pipeline(transaction=False)
            asking.evalsha(self._sha, 1, key, *numbers).hget(key, "tat1")
            try:
                (failing, wait), state = asking.execute()
            except NoScriptError:
                self._sha = self._redis.script_load(self._script)
                continue
            decision = Decision() if failing < 0 else Decision(policy.rates[failing], wait)
            return policy.get_usage(int(state or 0), now, decision)
        raise RedisError("it forgets scripts at once")
