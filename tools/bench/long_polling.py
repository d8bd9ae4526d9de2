"""`make bench-waiting`: measure whether 200 waiting clients slow other clients down.

A server on PostgreSQL serves a list of 20 repeatedly: without waiting clients, and with 100 clients that send
`Prefer: wait` and 100 that follow the events of generations whose progress changes each second. The two cases
take turns within one run, so compare their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import sqlalchemy

from db.rls.session_role import SYSTEM, set_role
from tools.bench.processes import cpu_seconds
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.databases import create_database
from tools.servers.server import ROOT, RunningServer, running_server

CLIENTS, GENERATIONS, PRODUCTS = 200, 20, 60
REQUESTS_PER_SECOND = 40
UPDATE_PROGRESS = sqlalchemy.text(
    "UPDATE generations SET progress = (progress + 1) % 100, revision = revision + 1"
)


def create_rows(api: Api) -> tuple[str, list[str]]:
    """Create the rows; return the path of the list and those of the generations, which no worker runs."""
    organization_id = api.get("/organizations/", sort="created_at")["data"][0]["id"]
    for number in range(PRODUCTS):
        api.post("/products/", organization_id, json={"name": f"Product {number}"})
    product = api.get("/products/", organization_id=organization_id, sort="created_at")["data"][0]["id"]
    body = {"product_id": product, "width": 64, "height": 64}
    ids = [api.post("/generations/", organization_id, json=body)["id"] for _ in range(GENERATIONS)]
    return f"/products/?limit=20&organization_id={organization_id}", [f"/generations/{each}" for each in ids]


async def run_waiting_clients(url: str, token: str, paths: list[str]) -> None:
    """Run all waiting clients: half long-poll, half follow events. Print a line when all are connected."""
    headers, limits = {"Authorization": f"Bearer {token}"}, httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, limits=limits) as client:
        connected = asyncio.Semaphore(0)

        async def follow_events(path: str) -> None:
            async with client.stream("GET", f"{path}/events") as response:
                async for _ in response.aiter_lines():
                    connected.release()

        async def poll(path: str) -> None:
            while True:
                connected.release()
                await client.get(path, headers={"Prefer": "wait=60"})

        chosen = [paths[number % len(paths)] for number in range(CLIENTS // 2)]
        functions = (follow_events, poll)
        tasks = [asyncio.create_task(function(path)) for path in chosen for function in functions]
        for _ in tasks:
            await connected.acquire()
        await asyncio.sleep(3)
        print("connected", flush=True)
        await asyncio.gather(*tasks)


@contextlib.contextmanager
def waiting_clients(url: str, token: str, paths: list[str]) -> Iterator[None]:
    """Run all waiting clients in another process within the block."""
    command = [sys.executable, "-m", "tools.bench.long_polling", "--clients", url, token, *paths]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "connected\n"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def advancing_generations(database_url: str) -> Iterator[None]:
    """Update the progress of every generation each second, like workers on other machines."""
    engine, stopped = sqlalchemy.create_engine(database_url), threading.Event()

    def update_progress() -> None:
        while not stopped.wait(1):
            with engine.begin() as connection:
                set_role(connection, SYSTEM)
                connection.execute(UPDATE_PROGRESS)

    thread = threading.Thread(target=update_progress)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        engine.dispose()


@dataclass
class Measurement:
    """The latency of each response in milliseconds, and the server's CPU time during the measurement."""

    milliseconds: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    seconds: float = 0.0


def measure_latency(
    server: RunningServer, api: Api, path: str, seconds: float, measurement: Measurement
) -> None:
    """Request the list at a steady rate and add the results to the measurement."""
    started_at, cpu_before = time.perf_counter(), cpu_seconds(server.process.pid)
    for number in range(int(seconds * REQUESTS_PER_SECOND)):
        time.sleep(max(0.0, started_at + number / REQUESTS_PER_SECOND - time.perf_counter()))
        sent_at = time.perf_counter()
        api.get(path)
        measurement.milliseconds.append((time.perf_counter() - sent_at) * 1000)
    measurement.cpu_seconds += cpu_seconds(server.process.pid) - cpu_before
    measurement.seconds += time.perf_counter() - started_at


def format_row(name: str, measurement: Measurement) -> str:
    """Return one line of the table."""
    percentiles = statistics.quantiles(measurement.milliseconds, n=100)
    cpu = 100 * measurement.cpu_seconds / measurement.seconds
    numbers = f"{percentiles[49]:>10.1f}{percentiles[94]:>10.1f}{percentiles[98]:>10.1f}{cpu:>14.0f}"
    return f"{name:<24}{len(measurement.milliseconds):>9}{numbers}"


def print_comparison(rounds: int, seconds: float) -> None:
    """Measure without and with waiting clients in turn, and print both."""
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-bench-") as folder,
        create_database() as database_url,
        running_server(
            Path(folder), DATABASE_URL=database_url, RENDER_WORKERS="0", LOG_LEVEL="WARNING"
        ) as server,
        Api(server.origin) as api,
    ):
        api.sign_in(EMAIL, PASSWORD)
        path, generations = create_rows(api)
        token = api.client.headers["Authorization"].removeprefix("Bearer ")
        measure_latency(server, api, path, 2, Measurement())
        alone, crowded = Measurement(), Measurement()
        with advancing_generations(database_url):
            for _ in range(rounds):
                measure_latency(server, api, path, seconds, alone)
                with waiting_clients(server.url, token, generations):
                    measure_latency(server, api, path, seconds, crowded)
                time.sleep(1)
    print(f"{'GET /products/?limit=20':<24} requests    p50 ms    p95 ms    p99 ms  server CPU %")
    print(format_row("no waiting clients", alone))
    print(format_row(f"{CLIENTS} waiting clients", crowded))


def main() -> None:
    """Print the comparison or, with `--clients`, run the waiting clients."""
    parser = argparse.ArgumentParser(prog="make bench-waiting ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8, help="duration of each measurement")
    parser.add_argument("--clients", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clients:
        url, token, *paths = options.clients
        asyncio.run(run_waiting_clients(url, token, paths))
    else:
        print_comparison(options.rounds, options.seconds)


if __name__ == "__main__":
    main()
