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

from studio.limits.counters import MemoryCounters
from studio.limits.policies import ALGORITHM, Policy, Standing

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 0.25
AWAY_SECONDS = 5.0
"""For how long a Redis that failed is not asked again."""


class SharedCounters:
    """Counts of all processes, in Redis, by one round trip; in memory while Redis does not answer."""

    def __init__(self, url: str, memory: MemoryCounters | None = None) -> None:
        self._memory = memory or MemoryCounters()
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            # Once more at once: the connection may be left from before a restart.
            retry=Retry(NoBackoff(), 1),
        )
        self._script = ALGORITHM.redis_script()
        self._sha = ""
        self._ask_again_at = 0.0

    @property
    def may_wait(self) -> bool:
        """Whether Redis will be asked."""
        return time.monotonic() >= self._ask_again_at

    def spend(self, policy: Policy, subject: str, now: int) -> Standing:
        """Take one unit; RedisError never leaves here."""
        if self.may_wait:
            try:
                standing = self._ask(policy, f"sartiq:limit:{policy.name}:{subject}", now)
            except RedisError as error:
                logger.warning("Redis is away, each process counts requests for itself: %s", error)
                self._ask_again_at = time.monotonic() + AWAY_SECONDS
            else:
                if self._ask_again_at:
                    logger.info("Redis is back, requests are counted for all processes")
                    self._ask_again_at = 0.0
                return standing
        return self._memory.spend(policy, subject, now)

    def _ask(self, policy: Policy, key: str, now: int) -> Standing:
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
            return policy.standing(int(state or 0), now, decision)
        raise RedisError("it forgets scripts at once")
