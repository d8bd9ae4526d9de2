"""The open loop: requests come when they come, whether or not the server has answered the ones before.

An answer's time counts from the moment at which its request was due, so a server that falls behind cannot
hide it by being asked less (coordinated omission). All contenders get the same moments, by chance and from
one seed. One thread of Python asks, on the core of PostgreSQL: what it costs, it costs all contenders.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

from tests.tools.bench.environment import BenchServer
from tests.tools.bench.operations import COUNTER, Operation, Request

CONNECTIONS = 64
GRACE_SECONDS = 20
SEED = 2041


@dataclass
class Latencies:
    """The seconds that each answer took, and how many were wrong or never came."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0


def arrival_times(rate: float, seconds: float) -> list[float]:
    """Return when requests are due, in seconds from the start: on average `rate` of them in each."""
    chance = random.Random(SEED)
    due, found = chance.expovariate(rate), []
    while due < seconds:
        found.append(due)
        due += chance.expovariate(rate)
    return found


def encode_requests(requests: Sequence[Request], host: str) -> Iterator[bytes]:
    """Give the bytes of the requests, again and again, each with a number of its own."""
    numbers = itertools.count(1)
    for each in itertools.cycle(requests):
        body = each.body.replace(COUNTER, str(next(numbers))).encode()
        lines = [f"{each.method} {each.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in each.headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        yield "\r\n".join([*lines, "", ""]).encode() + body


class _LoadGenerator:
    """What is due, and the connections that are free to ask it."""

    def __init__(self, host: str, status: int) -> None:
        self.address, _, self.port = host.partition(":")
        self.status = status
        self.latencies = Latencies()
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.connections: set[_Connection] = set()
        # The one that rested longest comes first, so that none rests until its server closes it.
        self.free: deque[_Connection] = deque()
        self.unanswered = 0
        self.all_answered = asyncio.Event()

    async def open(self) -> None:
        """Add a connection."""
        await asyncio.get_running_loop().create_connection(lambda: _Connection(self), self.address, self.port)

    def submit(self, due: float, wire: bytes) -> None:
        """Send a request now, or as soon as a connection is free."""
        self.unanswered += 1
        self.all_answered.clear()
        self.waiting.append((due, wire))
        self.send_next()

    def send_next(self) -> None:
        """Send what waits for a connection."""
        while self.waiting and self.free:
            self.free.popleft().send(*self.waiting.popleft())

    def record(self, due: float, is_right: bool) -> None:
        """Count an answer, or that there will be none."""
        self.unanswered -= 1
        self.latencies.seconds.append(asyncio.get_running_loop().time() - due)
        self.latencies.errors += not is_right
        if not self.unanswered:
            self.all_answered.set()

    def close(self) -> None:
        """Close all connections."""
        for each in tuple(self.connections):
            each.close()


class _Connection(asyncio.Protocol):
    """One connection, which asks one thing at a time; a new one takes its place when the server closes it."""

    def __init__(self, generator: _LoadGenerator) -> None:
        self._generator = generator
        self._due: float | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._generator.connections.add(self)
        self._generator.free.append(self)
        self._generator.send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.connections.discard(self)
        if self._is_closing:
            return
        if self._due is None:
            self._generator.free.remove(self)
        else:
            self._generator.record(self._due, is_right=False)
        self._opening = asyncio.get_running_loop().create_task(self._generator.open())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def send(self, due: float, wire: bytes) -> None:
        """Ask."""
        self._due = due
        self._transport.write(wire)

    def on_message_complete(self) -> None:
        """Take the answer, and what is due next."""
        if self._due is not None:
            self._generator.record(self._due, self._parser.get_status_code() == self._generator.status)
        self._due = None
        self._generator.free.append(self)
        self._generator.send_next()

    def close(self) -> None:
        """Close, for nobody will ask any more."""
        self._is_closing = True
        self._transport.close()


async def run_requests(host: str, asked: Iterator[bytes], due: Sequence[float], status: int) -> Latencies:
    """Ask at these moments, in seconds from now, and wait until all is answered, but not for ever."""
    loop = asyncio.get_running_loop()
    asking = _LoadGenerator(host, status)
    for _ in range(CONNECTIONS):
        await asking.open()
    began = loop.time()
    for moment in due:
        await asyncio.sleep(max(0.0, began + moment - loop.time()))
        asking.submit(began + moment, next(asked))
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            await asking.all_answered.wait()
    except TimeoutError:
        asking.latencies.errors += asking.unanswered
    asking.close()
    # So that they are closed before the loop is.
    await asyncio.sleep(0)
    return asking.latencies


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Let no collection of garbage look like a slow answer."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run_at_rate(
    server: BenchServer, operation: Operation, requests: Sequence[Request], rate: float, seconds: float
) -> Latencies:
    """Ask at a rate, and return how long each answer took from when its request was due."""
    host = urlsplit(server.url).netloc
    with _gc_disabled():
        return asyncio.run(
            run_requests(
                host, encode_requests(requests, host), arrival_times(rate, seconds), operation.status
            )
        )
