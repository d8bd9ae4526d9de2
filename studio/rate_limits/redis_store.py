"""Count requests in Redis, for all processes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Self
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from pyrate_limiter import Decision
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from studio.rate_limits.limits import ALGORITHM, LimitUsage, NamedLimit
from studio.rate_limits.memory_store import MemoryStore

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 0.25
RETRY_AFTER_SECONDS = 5.0
"""Seconds without requests to Redis after one of them failed."""

_SCRIPT = f"""
local function step(KEYS, ARGV)
{ALGORITHM.redis_script()}
end
local answers = {{}}
for i, key in ipairs(KEYS) do
    local ttl, emission, burst = unpack(ARGV, 3 * i - 1, 3 * i + 1)
    local failing, wait = unpack(step({{key}}, {{ARGV[1], 1, ttl, 1, emission, burst}}))
    answers[i] = {{failing, wait, tonumber(redis.call('HGET', key, 'tat1') or 0)}}
    if failing >= 0 then break end
end
return answers
"""
"""Takes one unit of each key, until one has none left: the script of the algorithm for each of them.

Returns for each whether it was allowed (-1), the milliseconds until it will be, and the count.
"""
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class RedisStore:
    """Counts in Redis, with one round trip for all limits of a call; in memory while it is unavailable."""

    def __init__(self, url: str) -> None:
        self._memory = MemoryStore()
        self._url = url
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            # Retry once without a pause: the connection may be from before a restart of Redis.
            retry=Retry(NoBackoff(), 1),
        )
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection] = WeakKeyDictionary()
        self._connecting: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._retry_at = 0.0

    @property
    def is_available(self) -> bool:
        """Whether the next call uses Redis."""
        return time.monotonic() >= self._retry_at

    def consume(self, limits: Sequence[NamedLimit], now: int) -> list[LimitUsage]:
        """Take one unit of each limit. Falls back to memory if Redis fails, and never raises RedisError."""
        if self.is_available:
            arguments = _build_arguments(limits, now)
            try:
                try:
                    answers = self._redis.evalsha(_SHA, *arguments)
                except NoScriptError:
                    # Redis has restarted or its scripts were flushed.
                    answers = self._redis.eval(_SCRIPT, *arguments)
            except RedisError as error:
                self._record_outage(error)
            else:
                return self._get_usages(limits, now, answers)
        return self._memory.consume(limits, now)

    async def consume_async(self, limits: Sequence[NamedLimit], now: int) -> list[LimitUsage]:
        """Do the same without blocking the event loop."""
        if self.is_available:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    answers = await self._evaluate(_build_arguments(limits, now))
            except (RedisError, OSError) as error:
                await self.close()
                self._record_outage(error)
            else:
                return self._get_usages(limits, now, answers)
        return self._memory.consume(limits, now)

    async def close(self) -> None:
        """Close the connection of the running event loop."""
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.close()

    async def _evaluate(self, arguments: Sequence[object]) -> Any:
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is not None and connection.is_open:
            # It may be from before a restart of Redis. At worst a request counts twice.
            with suppress(ConnectionError):
                return await connection.evaluate(arguments)
        async with self._connecting.setdefault(loop, asyncio.Lock()):
            if self._connections.get(loop) in (None, connection):
                await self.close()
                self._connections[loop] = await _Connection.connect(self._url)
        return await self._connections[loop].evaluate(arguments)

    def _record_outage(self, error: Exception) -> None:
        reason = error or type(error).__name__
        logger.warning("Redis is unavailable, each process counts requests for itself: %s", reason)
        self._retry_at = time.monotonic() + RETRY_AFTER_SECONDS

    def _get_usages(
        self, limits: Sequence[NamedLimit], now: int, answers: Iterable[Sequence[int]]
    ) -> list[LimitUsage]:
        if self._retry_at:
            logger.info("Redis is available again, requests are counted for all processes")
            self._retry_at = 0.0
        return [
            policy.get_usage(state, now, Decision() if failing < 0 else Decision(policy.rates[0], wait))
            # After an exhausted limit, the others are not counted.
            for (policy, _), (failing, wait, state) in zip(limits, answers, strict=False)
        ]


def _build_arguments(limits: Sequence[NamedLimit], now: int) -> list[object]:
    """Return the number of keys, the keys and the arguments of the script."""
    keys = [f"sartiq:limit:{policy.name}:{name}" for policy, name in limits]
    arguments: list[object] = [len(keys), *keys, now]
    for policy, _ in limits:
        # The key expires after twice the window: the whole quota is available again before that.
        arguments += [2000 * policy.window, *ALGORITHM.redis_args(policy.rates)]
    return arguments


class _Connection(asyncio.Protocol):
    """Runs the script on a connection of an event loop. A request does not wait for the answer to another.

    The client of Redis connects: it knows TLS, users and Unix sockets. Its commands cost four times the CPU.
    """

    def __init__(self, client: Any, transport: asyncio.Transport) -> None:
        self._client, self._transport = client, transport
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._received = b""
        transport.set_protocol(self)

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Return a new connection.

        Raises:
            RedisError: Redis cannot be reached, or rejects the credentials.
        """
        client = redis.asyncio.Redis.from_url(url).connection_pool.make_connection()
        await client.connect()
        return cls(client, client._writer.transport)

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return not self._transport.is_closing()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.disconnect(nowait=True)

    async def evaluate(self, arguments: Sequence[object]) -> Any:
        """Return the answers of the script.

        Raises:
            ConnectionError: Redis closed the connection.
            RedisError: The script failed.
        """
        answer = await self._send("EVALSHA", _SHA, *arguments)
        if isinstance(answer, NoScriptError):
            # Redis has restarted or its scripts were flushed.
            answer = await self._send("EVAL", _SCRIPT, *arguments)
        if isinstance(answer, RedisError):
            raise answer
        return answer

    async def _send(self, *words: object) -> Any:
        encoded = [str(word).encode() for word in words]
        self._transport.write(
            b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
        )
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        return await answer

    def data_received(self, data: bytes) -> None:
        """Resolve what waits for the answers that are complete."""
        self._received += data
        while self._waiting and self._received:
            try:
                answer, end = _parse(self._received, 0)
            except ValueError:
                return
            self._received = self._received[end:]
            waiting = self._waiting.popleft()
            # Done is one that was canceled.
            if not waiting.done():
                waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits for an answer."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(ConnectionError(str(exc or "Redis closed the connection")))


def _parse(data: bytes, start: int) -> tuple[Any, int]:
    """Return the answer that begins at `start`, and where it ends: an integer, an array or an error.

    Raises:
        ValueError: The answer is incomplete.
    """
    line_end = data.index(b"\r\n", start)
    kind, line, end = data[start : start + 1], data[start + 1 : line_end], line_end + 2
    if kind == b":":
        return int(line), end
    if kind != b"*":
        error = NoScriptError if line.startswith(b"NOSCRIPT") else ResponseError
        return error(line.decode(errors="replace")), end
    items = []
    for _ in range(int(line)):
        item, end = _parse(data, end)
        items.append(item)
    return items, end
