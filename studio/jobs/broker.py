"""Check whether the Redis server of the workers can be reached. Knows nothing of messages and queues."""

from __future__ import annotations

from functools import cache

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_SECONDS = 1.0


def is_broker_usable(url: str) -> bool:
    """Return whether the server answers within a second or two."""
    try:
        return bool(_connect(url).ping())
    except RedisError:
        return False


@cache
def _connect(url: str) -> Redis:
    """Return the client of a server. It has a pool of connections, which threads share."""
    # Retry once without a pause: the connection may be from before a restart of Redis.
    retry = Retry(NoBackoff(), 1)
    return Redis.from_url(
        url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, retry=retry
    )
