"""A client that does ordinary work while another account attacks: reads, writes, whole main jobs, probes.

Requests are sent on a schedule, whether or not earlier ones have been answered, so a server that falls behind
cannot hide it. It knows nothing about the attacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.abuse.client import Address, Connection, Payload, Response, encode_request
from tests.abuse.deployment import Account
from tools.servers.server import BASE_PATH

REQUESTS_PER_SECOND = 20
PROBES_PER_SECOND = 4
PROBES = ("/utils/health-check/", "/utils/readiness")
TIMEOUT_SECONDS = 30
JOB_SECONDS = 60
REUSE_SECONDS = 3
"""A connection that was idle for longer is not used again: the server may be about to close it."""


def percentile(values: list[float], percent: float) -> float:
    """Return the smallest value that is not exceeded by `percent` % of the values."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)] if values else 0.0


@dataclass
class Samples:
    """Latencies in milliseconds, and a text for each failed request."""

    milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Method and path of each request, in the order of `milliseconds`."""

    def slowest(self, count: int) -> list[str]:
        """Return the slowest requests with their times."""
        slowest = sorted(zip(self.milliseconds, self.requests, strict=False), reverse=True)[:count]
        return [f"{request}: {milliseconds:.0f} ms" for milliseconds, request in slowest]

    def p(self, percent: float) -> float:
        """Return a percentile of the latencies."""
        return percentile(self.milliseconds, percent)


@dataclass
class Observation:
    """What the bystander measured during one phase."""

    requests: Samples = field(default_factory=Samples)
    probes: Samples = field(default_factory=Samples)
    jobs: Samples = field(default_factory=Samples)
    webhooks: Samples = field(default_factory=Samples)
    """From the end of a generation to the arrival of its event."""

    @property
    def errors(self) -> list[str]:
        """The texts of all failed requests."""
        return [*self.requests.errors, *self.probes.errors, *self.jobs.errors, *self.webhooks.errors]


class UnexpectedResponse(Exception):
    """A response has another status than a successful one."""


class Pool:
    """The connections to one server; a new one is opened whenever none is free."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._free: deque[tuple[float, Connection]] = deque()

    async def send(self, payload: Payload) -> Response:
        """Send a request."""
        connection = self._take() or await Connection.open(self.address, keeps_bodies=True)
        try:
            response = await connection.send(payload)
        except BaseException:
            connection.close()
            raise
        self._free.append((time.monotonic(), connection))
        return response

    def close(self) -> None:
        """Close the connections that no request uses."""
        for _, connection in self._free:
            connection.close()

    def _take(self) -> Connection | None:
        while self._free:
            used_at, connection = self._free.pop()
            if not connection.is_closed and time.monotonic() - used_at < REUSE_SECONDS:
                return connection
            connection.close()
        return None


class WebhookReceiver:
    """A server that accepts webhooks and notes when the event of each row arrived."""

    def __init__(self) -> None:
        self._arrived: dict[str, asyncio.Future[float]] = {}

    def arrival_of(self, row_id: str) -> asyncio.Future[float]:
        """Return the time of a row's event, when it has arrived."""
        if row_id not in self._arrived:
            self._arrived[row_id] = asyncio.get_running_loop().create_future()
        return self._arrived[row_id]

    @contextlib.asynccontextmanager
    async def run(self, port: int) -> AsyncIterator[None]:
        """Run the server within the block."""
        server = await asyncio.start_server(self._receive, "127.0.0.1", port)
        async with server:
            yield

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # the sender has gone: it sends again
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split()[0])
            event = json.loads(await reader.readexactly(length))
            arrival = self.arrival_of(event["data"]["id"])
            if not arrival.done():
                arrival.set_result(time.monotonic())
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()


class Bystander:
    """The client.

    Args:
        account: Its account, with the shots that its main jobs use one by one.
        addresses: The servers, which it uses in turn.
        receiver: The server of its webhook endpoint.
    """

    def __init__(self, account: Account, addresses: list[Address], receiver: WebhookReceiver) -> None:
        self.account, self.receiver = account, receiver
        self._all_pools = [Pool(address) for address in addresses]
        self._pools = itertools.cycle(self._all_pools)
        self._headers = {"Authorization": f"Bearer {account.token}"}
        self._shots = iter(account.ids["shots"])
        self._numbers = itertools.count()
        self._prediction_id = ""
        self._mix = itertools.cycle(self._build_mix())

    async def close(self) -> None:
        """Close the connections."""
        for pool in self._all_pools:
            pool.close()
        await asyncio.sleep(0)  # a transport closes its socket in the next turn of the event loop

    def _build_mix(self) -> list[Any]:
        ids, scope = self.account.ids, f"organization_id={self.account.organization_id}"
        (product,), (shooting,), (brand,) = ids["product"], ids["shooting"], ids["brand"]
        return [
            lambda: self._get("/users/me"),
            lambda: self._get(f"/products/?limit=20&{scope}"),
            lambda: self._write("PATCH", f"/products/{product}", {"name": f"Wrap {next(self._numbers)}"}),
            lambda: self._get(f"/shootings/{shooting}"),
            lambda: self._get(f"/shots/?limit=20&shooting_id={shooting}&{scope}"),
            lambda: self._write("POST", f"/products/?{scope}", {"name": f"Dress {next(self._numbers)}"}),
            lambda: self._get(f"/search/?q=dress&{scope}"),
            lambda: self._get(f"/predictions/{self._prediction_id}/image"),
            lambda: self._write("PATCH", f"/brands/{brand}", {"name": f"Atelier {next(self._numbers)}"}),
            lambda: self._get(f"/generations/?limit=20&{scope}"),
        ]

    def _get(self, path: str, **headers: str) -> Payload:
        return Payload(encode_request("GET", BASE_PATH + path, {**self._headers, **headers}))

    def _write(self, method: str, path: str, document: Any) -> Payload:
        headers = {**self._headers, "Content-Type": "application/json"}
        return Payload(encode_request(method, BASE_PATH + path, headers, json.dumps(document).encode()))

    async def observe(self, seconds: float) -> Observation:
        """Work for some seconds, with one main job, and return what was measured once all of it has ended."""
        observation = Observation()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_job(observation))
            group.create_task(
                self._send_on_schedule(
                    observation.requests, REQUESTS_PER_SECOND, seconds, (build() for build in self._mix)
                )
            )
            group.create_task(
                self._send_on_schedule(
                    observation.probes, PROBES_PER_SECOND, seconds, itertools.cycle(_build_probes())
                )
            )
        return observation

    async def _send_on_schedule(
        self, samples: Samples, rate: float, seconds: float, payloads: Iterator[Payload]
    ) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                group.create_task(self._measure(samples, next(payloads)))

    async def _measure(self, samples: Samples, payload: Payload) -> None:
        with recording(samples, payload):
            await self._send(payload)

    async def _send(self, payload: Payload, seconds: float = TIMEOUT_SECONDS) -> Any:
        async with asyncio.timeout(seconds):
            response = await next(self._pools).send(payload)
        if response.status not in (200, 201, 202):
            raise UnexpectedResponse(f"{response.status} {response.body[:300].decode(errors='replace')}")
        return response.body

    async def _run_job(self, observation: Observation) -> None:
        """Generate an image, approve and download it, and wait for the event at the webhook endpoint."""
        shot = next(self._shots)
        start = self._write("POST", f"/shots/{shot}/generate", {"num_predictions": 1})
        ended_at, generation_id = 0.0, ""
        with recording(observation.jobs, start):
            async with asyncio.timeout(JOB_SECONDS):
                generation = json.loads(await self._send(start))
                generation_id = generation["id"]
                while generation["status"] in ("pending", "running"):
                    path = f"/generations/{generation_id}"
                    generation = json.loads(await self._send(self._get(path, Prefer="wait=20")))
            if generation["status"] != "completed":
                raise UnexpectedResponse(f"the generation is {generation['status']}: {generation['error']}")
            ended_at = time.monotonic()
            (prediction,) = generation["predictions"]
            self._prediction_id = prediction["id"]
            approval = {"prediction_id": prediction["id"]}
            await self._send(self._write("POST", f"/shots/{shot}/approve", approval))
            await self._send(self._get(f"/predictions/{prediction['id']}/image"))
        if ended_at:
            with recording(observation.webhooks, start):
                async with asyncio.timeout(JOB_SECONDS):
                    arrived_at = await self.receiver.arrival_of(generation_id)
            observation.webhooks.milliseconds[-1] = max(0.0, (arrived_at - ended_at) * 1000)


@contextlib.contextmanager
def recording(samples: Samples, payload: Payload) -> Iterator[None]:
    """Record the time of the block, and its error."""
    began = time.perf_counter()
    error = ""
    try:
        yield
    except TimeoutError:
        error = "no response in time"
    except (UnexpectedResponse, OSError) as caught:
        error = str(caught) or type(caught).__name__
    samples.milliseconds.append((time.perf_counter() - began) * 1000)
    line = payload.wire.split(b" HTTP/1.1", 1)[0].decode()
    samples.requests.append(line)
    if error:
        samples.errors.append(f"{line}: {error} after {samples.milliseconds[-1]:.0f} ms")


def _build_probes() -> list[Payload]:
    return [Payload(encode_request("GET", BASE_PATH + path, {})) for path in PROBES for _ in range(2)]
