"""The open loop: requests are sent at given times, whether or not earlier responses have arrived.

Latency counts from the scheduled time of a request, so a server that falls behind cannot hide it by
receiving fewer requests (coordinated omission). All servers get the same random arrival times, from one seed.
One Python thread sends the requests, on the core of PostgreSQL; its cost is the same for all servers.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import cast
from urllib.parse import urlsplit

import httptools

from tools.bench.environment import BenchServer
from tools.bench.operations import COUNTER, RUN, Operation, Request

CONNECTIONS = 64
GRACE_SECONDS = 20
SEED = 2041


@dataclass
class Latencies:
    """The latency of each response in seconds, and the number of wrong or missing responses."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0


def arrival_times(rate: float, seconds: float) -> list[float]:
    """Return the times of requests in seconds from the start, on average `rate` of them per second."""
    generator = random.Random(SEED)
    due, times = generator.expovariate(rate), []
    while due < seconds:
        times.append(due)
        due += generator.expovariate(rate)
    return times


def encode_requests(requests: Sequence[Request], host: str) -> Iterator[bytes]:
    """Yield the bytes of the requests endlessly in turn; a counter in the body makes each one unique."""
    run = uuid.uuid4().hex
    for number, each in enumerate(itertools.cycle(requests), 1):
        body = each.body.replace(COUNTER, str(number)).encode()
        key = each.key.replace(RUN, run).replace(COUNTER, str(number))
        lines = [f"{each.method} {each.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in replace(each, key=key).headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        yield "\r\n".join([*lines, "", ""]).encode() + body


class _LoadGenerator:
    """The queue of due requests, and the free connections that send them."""

    def __init__(self, host: str, status: int) -> None:
        self.address, _, self.port = host.partition(":")
        self.status = status
        self.latencies = Latencies()
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.connections: set[_Connection] = set()
        # The connection that was idle longest comes first, so that the server's keep-alive does not close it.
        self.free: deque[_Connection] = deque()
        self.pending = 0
        self.all_completed = asyncio.Event()

    async def open(self) -> None:
        """Open a connection."""
        await asyncio.get_running_loop().create_connection(lambda: _Connection(self), self.address, self.port)

    def submit(self, due: float, wire: bytes) -> None:
        """Send a request now, or as soon as a connection is free."""
        self.pending += 1
        self.all_completed.clear()
        self.waiting.append((due, wire))
        self.send_next()

    def send_next(self) -> None:
        """Send the waiting requests on free connections."""
        while self.waiting and self.free:
            self.free.popleft().send(*self.waiting.popleft())

    def record(self, due: float, is_right: bool) -> None:
        """Record a response, or that none will arrive."""
        self.pending -= 1
        self.latencies.seconds.append(asyncio.get_running_loop().time() - due)
        self.latencies.errors += not is_right
        if not self.pending:
            self.all_completed.set()

    def close(self) -> None:
        """Close all connections."""
        for each in tuple(self.connections):
            each.close()


class _Connection(asyncio.Protocol):
    """One connection with at most one open request. If the server closes it, a new one replaces it."""

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
        """Send a request that was due at this time of the loop's clock."""
        self._due = due
        self._transport.write(wire)

    def on_message_complete(self) -> None:
        """Record the response and send the next request."""
        if self._due is not None:
            self._generator.record(self._due, self._parser.get_status_code() == self._generator.status)
        self._due = None
        self._generator.free.append(self)
        self._generator.send_next()

    def close(self) -> None:
        """Close the connection without replacing it."""
        self._is_closing = True
        self._transport.close()


async def run_requests(host: str, requests: Iterator[bytes], due: Sequence[float], status: int) -> Latencies:
    """Send requests at these times, in seconds from now, and wait at most 20 seconds for all responses."""
    loop = asyncio.get_running_loop()
    generator = _LoadGenerator(host, status)
    for _ in range(CONNECTIONS):
        await generator.open()
    started_at = loop.time()
    for moment in due:
        await asyncio.sleep(max(0.0, started_at + moment - loop.time()))
        generator.submit(started_at + moment, next(requests))
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            await generator.all_completed.wait()
    except TimeoutError:
        generator.latencies.errors += generator.pending
    generator.close()
    # Let the connections close before the loop does.
    await asyncio.sleep(0)
    return generator.latencies


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disable garbage collection within the block: a pause would look like a slow response."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run_at_rate(
    server: BenchServer, operation: Operation, requests: Sequence[Request], rate: float, seconds: float
) -> Latencies:
    """Send requests at a rate and return their latencies, counted from their scheduled times."""
    host = urlsplit(server.url).netloc
    with _gc_disabled():
        return asyncio.run(
            run_requests(
                host, encode_requests(requests, host), arrival_times(rate, seconds), operation.status
            )
        )
