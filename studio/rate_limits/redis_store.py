"""Count requests in Redis, for all processes."""

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
"""Seconds without requests to Redis after one of them failed."""


class RedisStore:
    """Counts in Redis, with one round trip for each unit; in memory while Redis is unavailable."""

    def __init__(self, url: str) -> None:
        self._memory = MemoryStore()
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            # Retry once without a pause: the connection may be from before a restart of Redis.
            retry=Retry(NoBackoff(), 1),
        )
        self._script = ALGORITHM.redis_script()
        self._sha = ""
        self._retry_at = 0.0

    @property
    def is_blocking(self) -> bool:
        """Whether the next call uses Redis."""
        return time.monotonic() >= self._retry_at

    def consume(self, policy: QuotaPolicy, name: str, now: int) -> LimitUsage:
        """Take one unit. Falls back to memory if Redis fails, and never raises RedisError."""
        if self.is_blocking:
            try:
                usage = self._consume_in_redis(policy, f"sartiq:limit:{policy.name}:{name}", now)
            except RedisError as error:
                logger.warning("Redis is unavailable, each process counts requests for itself: %s", error)
                self._retry_at = time.monotonic() + RETRY_AFTER_SECONDS
            else:
                if self._retry_at:
                    logger.info("Redis is available again, requests are counted for all processes")
                    self._retry_at = 0.0
                return usage
        return self._memory.consume(policy, name, now)

    def _consume_in_redis(self, policy: QuotaPolicy, key: str, now: int) -> LimitUsage:
        if not self._sha:
            self._sha = self._redis.script_load(self._script)
        # The key expires after twice the window: the whole quota is available again before that.
        arguments = [now, 1, 2000 * policy.window, 1, *ALGORITHM.redis_args(policy.rates)]
        for _ in range(2):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.evalsha(self._sha, 1, key, *arguments).hget(key, "tat1")
            try:
                (failing, wait), state = pipeline.execute()
            except NoScriptError:
                # Redis has restarted or its scripts were flushed.
                self._sha = self._redis.script_load(self._script)
                continue
            decision = Decision() if failing < 0 else Decision(policy.rates[failing], wait)
            return policy.get_usage(int(state or 0), now, decision)
        raise RedisError("the script is missing right after it was loaded")
