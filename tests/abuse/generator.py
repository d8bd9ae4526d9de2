"""The load generator: a process of its own that runs one attack and prints what it received as JSON.

It reads its task as JSON from standard input. It runs with a low priority, because it shares the cores with
the servers that it attacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.abuse.attacks import ATTACKS, Target
from tests.abuse.client import Address, Connection, ConnectionEnded, Payload

SLOW_RESPONSE_SECONDS = 14
"""Just below the time that the server waits for webhook endpoints and image servers."""
RECONNECT_SECONDS = 0.05
SPIN_SHARE = 0.3
"""Share of one core that the control uses."""


@dataclass
class Tally:
    """What the attacker received."""

    statuses: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Return the counts, and the CPU seconds of this process."""
        return {"statuses": dict(self.statuses), "cpu_seconds": time.process_time()}


async def drive(address: Address, payloads: Iterator[Payload], tally: Tally) -> None:
    """Send one payload after the other on a connection, and open a new one when the server closes it."""
    connection: Connection | None = None
    while True:
        try:
            if connection is None or connection.is_closed:
                connection = await Connection.open(address)
            response = await connection.send(next(payloads))
            tally.statuses[str(response.status)] += 1
        except ConnectionEnded:
            tally.statuses["closed"] += 1
            await asyncio.sleep(RECONNECT_SECONDS)
        except OSError:
            tally.statuses["refused"] += 1
            await asyncio.sleep(RECONNECT_SECONDS)


async def respond_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a request and respond after `SLOW_RESPONSE_SECONDS`."""
    with contextlib.suppress(OSError, asyncio.CancelledError):  # the caller has gone, or the attack has ended
        await reader.read(65_536)
        await asyncio.sleep(SLOW_RESPONSE_SECONDS)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
    writer.close()


def spin(seconds: float) -> None:
    """Use a share of one core without a request: the control of the measurement."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        busy_until = time.monotonic() + 0.01 * SPIN_SHARE
        while time.monotonic() < busy_until:
            pass
        time.sleep(0.01 * (1 - SPIN_SHARE))


async def attack(task: dict[str, Any], tally: Tally) -> None:
    """Run an attack for its time; responses that have not arrived by then are counted as `open`."""
    target = Target(
        task["token"],
        task["organization_id"],
        task["ids"],
        Path(task["files"]),
        task["slow_port"],
        random.Random(task["seed"]),
    )
    chosen = ATTACKS[task["attack"]]
    payloads = chosen.payloads(target)
    slow = await asyncio.start_server(respond_slowly, "127.0.0.1", task["slow_port"])
    async with slow:
        connections = [
            asyncio.create_task(
                drive(Address(task["ports"][number % len(task["ports"])], task["source"]), payloads, tally)
            )
            for number in range(chosen.connections)
        ]
        done, _ = await asyncio.wait(
            connections, timeout=task["seconds"], return_when=asyncio.FIRST_EXCEPTION
        )
        for each in done:
            each.result()
        tally.statuses["open"] = sum(not each.done() for each in connections)
        for each in connections:
            each.cancel()


def main() -> None:
    """Run the task of standard input."""
    task, tally = json.load(sys.stdin), Tally()
    if task["attack"] in ATTACKS:
        with contextlib.suppress(asyncio.CancelledError):  # the time of the attack is over
            asyncio.run(attack(task, tally))
    else:
        spin(task["seconds"])
    json.dump(tally.as_json(), sys.stdout)


if __name__ == "__main__":
    main()
