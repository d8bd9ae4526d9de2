"""`make bench-waiting`: do 200 callers who wait slow the others down?

A real server on PostgreSQL answers a list of 20, again and again: alone, and with 100 callers who prefer to
wait and 100 who follow events, of generations that all move each second. Both in turn and in one run: ratios
count.
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
from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.server import ROOT, RunningServer, running_server
from tests.support.databases import create_database
from tests.tools.bench.processes import cpu_seconds

CALLERS, GENERATIONS, PRODUCTS = 200, 20, 60
REQUESTS_PER_SECOND = 40
UPDATE_PROGRESS = sqlalchemy.text(
    "UPDATE generations SET progress = (progress + 1) % 100, revision = revision + 1"
)


def create_rows(api: Api) -> tuple[str, list[str]]:
    """Make the rows; return the address of the list and those of the generations, which nobody works on."""
    scope = api.get("/organizations/", sort="created_at")["data"][0]["id"]
    for number in range(PRODUCTS):
        api.post("/products/", scope, json={"name": f"Product {number}"})
    product = api.get("/products/", organization_id=scope, sort="created_at")["data"][0]["id"]
    order = {"product_id": product, "width": 64, "height": 64}
    made = [api.post("/generations/", scope, json=order)["id"] for _ in range(GENERATIONS)]
    return f"/products/?limit=20&organization_id={scope}", [f"/generations/{one}" for one in made]


async def run_waiting_clients(url: str, token: str, paths: list[str]) -> None:
    """Be all callers: half of them wait, half follow; say so when each is in its place, and stay."""
    headers, limits = {"Authorization": f"Bearer {token}"}, httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, limits=limits) as client:
        places = asyncio.Semaphore(0)

        async def follow(path: str) -> None:
            async with client.stream("GET", f"{path}/events") as answer:
                async for _ in answer.aiter_lines():
                    places.release()

        async def prefer_to_wait(path: str) -> None:
            while True:
                places.release()
                await client.get(path, headers={"Prefer": "wait=60"})

        chosen = [paths[number % len(paths)] for number in range(CALLERS // 2)]
        ways = (follow, prefer_to_wait)
        callers = [asyncio.create_task(way(path)) for path in chosen for way in ways]
        for _ in callers:
            await places.acquire()
        await asyncio.sleep(3)
        print("in line", flush=True)
        await asyncio.gather(*callers)


@contextlib.contextmanager
def waiting_clients(url: str, token: str, paths: list[str]) -> Iterator[None]:
    """Keep all callers waiting, in a process of their own."""
    command = [sys.executable, "-m", "tests.tools.bench.long_polling", "--callers", url, token, *paths]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "in line\n"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def advancing_generations(database_url: str) -> Iterator[None]:
    """Let every generation move each second, as workers elsewhere would."""
    engine, over = sqlalchemy.create_engine(database_url), threading.Event()

    def move() -> None:
        while not over.wait(1):
            with engine.begin() as connection:
                set_role(connection, SYSTEM)
                connection.execute(UPDATE_PROGRESS)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        over.set()
        mover.join()
        engine.dispose()


@dataclass
class Measurement:
    """Milliseconds that each answer took, and what the server worked meanwhile."""

    milliseconds: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    seconds: float = 0.0


def measure_latency(
    server: RunningServer, api: Api, path: str, seconds: float, measurement: Measurement
) -> None:
    """Ask for the list at a steady rate."""
    began, worked = time.perf_counter(), cpu_seconds(server.process.pid)
    for number in range(int(seconds * REQUESTS_PER_SECOND)):
        time.sleep(max(0.0, began + number / REQUESTS_PER_SECOND - time.perf_counter()))
        asked = time.perf_counter()
        api.get(path)
        measurement.milliseconds.append((time.perf_counter() - asked) * 1000)
    measurement.cpu_seconds += cpu_seconds(server.process.pid) - worked
    measurement.seconds += time.perf_counter() - began


def format_row(name: str, measured: Measurement) -> str:
    """Return one line of the table."""
    cuts = statistics.quantiles(measured.milliseconds, n=100)
    core = 100 * measured.cpu_seconds / measured.seconds
    numbers = f"{cuts[49]:>10.1f}{cuts[94]:>10.1f}{cuts[98]:>10.1f}{core:>14.0f}"
    return f"{name:<24}{len(measured.milliseconds):>9}{numbers}"


def print_comparison(rounds: int, seconds: float) -> None:
    """Measure alone and with callers in turn, and print both."""
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-bench-") as folder,
        create_database("postgresql", Path(folder)) as database_url,
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
    print(format_row("alone", alone), format_row(f"with {CALLERS} who wait", crowded), sep="\n")


def main() -> None:
    """Compare, or be the callers."""
    parser = argparse.ArgumentParser(prog="make bench-waiting ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--callers", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.callers:
        url, token, *paths = options.callers
        asyncio.run(run_waiting_clients(url, token, paths))
    else:
        print_comparison(options.rounds, options.seconds)


if __name__ == "__main__":
    main()
