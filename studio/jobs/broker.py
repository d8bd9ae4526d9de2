"""Check whether the Redis server of the workers can be reached. Knows nothing of messages and queues."""

from __future__ import annotations

import threading
import time
from functools import cache

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_SECONDS = 1.0
CACHE_SECONDS = 1.0


class BrokerProbe:
    """Pings one server, at most once at a time: probes need no credential and are not rate limited."""

    def __init__(self, url: str) -> None:
        # Retry once without a pause: the connection may be from before a restart of Redis.
        options = {"retry": Retry(NoBackoff(), 1), "socket_connect_timeout": TIMEOUT_SECONDS}
        self._redis: Redis = Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, **options)
        self._lock = threading.Lock()
        self._result: bool | None = None
        self._checked_at = 0.0

    def is_usable(self) -> bool:
        """Return whether the server answers. The result is up to `CACHE_SECONDS` old.

        While another thread waits for the server, return the last result; only the first one is waited for.
        """
        if not self._lock.acquire(blocking=self._result is None):
            return bool(self._result)
        try:
            if self._result is None or time.monotonic() - self._checked_at > CACHE_SECONDS:
                self._result, self._checked_at = self._ping(), time.monotonic()
            return self._result
        finally:
            self._lock.release()

    def _ping(self) -> bool:
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False


@cache
def get_broker_probe(url: str) -> BrokerProbe:
    """Return the probe of a server. There is one for each URL."""
    return BrokerProbe(url)
