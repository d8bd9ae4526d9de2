"""`make bench-tail`: find out where the slowest creates at 80 % of the sustained rate spend their time.

The server has its own core and timers around its parts (`tail_server.py`). The table compares the mean times
of the usual requests with those of the slowest hundredth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import httpx

from tools.bench.closed_loop import require_wrk, run_load
from tools.bench.environment import BenchEnvironment, BenchServer, run_environment, start_server
from tools.bench.measurements import TAIL_REQUESTS
from tools.bench.open_loop import Latencies, run_at_rate
from tools.bench.operations import OPERATIONS_BY_NAME, Request
from tools.bench.rows import Scale
from tools.bench.run import require_cores
from tools.bench.servers import OURS, SERVER_PYTHON
from tools.bench.statistics import percentile
from tools.bench.tail_server import (
    COLLECTION,
    CPU_IN_STATEMENTS,
    DATABASE,
    QUEUE,
    RECORDS,
    THREAD,
    THREAD_CPU,
    TOTAL,
    Record,
)
from tools.bench.targets import TAIL_SHARE
from tools.servers.processes import DependencyMissing
from tools.servers.server import ROOT

CREATE = OPERATIONS_BY_NAME["create"]
SCALE = Scale(100, 1_000)
CONNECTIONS = (8, 64)
CAPACITY_SECONDS = 3
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- tail of a create, written by make bench-tail -->", "<!-- end of tail -->"
USUAL, SLOWEST = (0.4, 0.6), (0.99, 1.0)
"""The ranks of the requests that are compared, as shares."""
TIMED_SERVER = replace(OURS, command=(str(SERVER_PYTHON), "-m", "tools.bench.tail_server"))
LOOP = "event loop: middleware, and waiting for its turn"
COMPUTING = "thread: computing"
WAITING = "thread: waiting for the interpreter lock or the core"


@dataclass(frozen=True)
class Tail:
    """The latencies of the clients, and the times of the server for the same requests."""

    share: float
    """The rate as a share of the sustained one."""
    rate: float
    latencies: Latencies
    records: Sequence[Record]


def _build_requests(environment: BenchEnvironment, server: BenchServer) -> list[Request]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        return CREATE.requests(client, environment.scale)


def measure_tail(environment: BenchEnvironment, count: int, share: float) -> Tail:
    """Find the sustained rate of creates, then send `count` of them at a share of it."""
    environment.copy("tail")
    with start_server(environment, OURS, "tail") as server:
        requests = _build_requests(environment, server)
        loads = [run_load(server, CREATE, requests, each, CAPACITY_SECONDS) for each in (8, *CONNECTIONS)]
    # The first load is the warm-up.
    rate = share * min(load.rate for load in loads[1:])
    records = environment.folder / "tail.json"
    with start_server(environment, TIMED_SERVER, "tail", **{RECORDS: str(records)}) as server:
        requests = _build_requests(environment, server)
        run_load(server, CREATE, requests, 8, CAPACITY_SECONDS)
        latencies = run_at_rate(server, CREATE, requests, rate, count / rate)
    found: list[Record] = json.loads(records.read_text(encoding="utf-8"))
    # The records of the warm-up come first.
    return Tail(share, rate, latencies, found[-len(latencies.seconds) :])


def split_request(record: Record) -> dict[str, float]:
    """Return the seconds of a request by part. Their sum is its time in the server."""
    statements = {part: record.get(part, 0.0) for part in DATABASE}
    waiting = sum(statements.values()) - record[CPU_IN_STATEMENTS]
    return {
        LOOP: record[TOTAL] - record[QUEUE] - record[THREAD],
        QUEUE: record[QUEUE],
        COMPUTING: record[THREAD_CPU] - record[CPU_IN_STATEMENTS],
        WAITING: record[THREAD] - record[THREAD_CPU] - waiting,
        **statements,
    }


def _mean_parts(records: Sequence[Record], ranks: tuple[float, float]) -> dict[str, float]:
    ordered = sorted(records, key=lambda record: record[TOTAL])
    chosen = ordered[int(ranks[0] * len(ordered)) : int(ranks[1] * len(ordered))]
    parts = [{**split_request(each), COLLECTION: each[COLLECTION], TOTAL: each[TOTAL]} for each in chosen]
    return {name: 1000 * mean(each[name] for each in parts) for name in parts[0]}


def format_table(tail: Tail) -> Iterator[str]:
    """Yield the lines of the table, in milliseconds."""
    usual, slowest = (_mean_parts(tail.records, ranks) for ranks in (USUAL, SLOWEST))
    excess = slowest[TOTAL] - usual[TOTAL]
    yield "| Part of a create, milliseconds | usual request | slowest hundredth | share of the difference |"
    yield "|---|---:|---:|---:|"
    for name in usual:
        if name not in (TOTAL, COLLECTION):
            share = (slowest[name] - usual[name]) / excess
            yield f"| {name} | {usual[name]:.2f} | {slowest[name]:.2f} | {share:.0%} |"
    yield f"| **in the server** | {usual[TOTAL]:.2f} | {slowest[TOTAL]:.2f} | 100% |"
    yield f"| of these, {COLLECTION} | {usual[COLLECTION]:.2f} | {slowest[COLLECTION]:.2f} | |"
    percentiles = [1000 * percentile(tail.latencies.seconds, share) for share in (0.5, 0.99)]
    yield f"| latency at the client, p50 and p99 | {percentiles[0]:.2f} | {percentiles[1]:.2f} | |"
    yield ""
    count, errors = len(tail.records), tail.latencies.errors
    rate = f"{tail.rate:.0f} per second, {tail.share:.0%} of the sustained rate"
    yield f"({count:,} creates at {rate}; {errors} failed.)"


def main() -> int:
    """Measure, print, and write the table into the documentation if `--write` is given."""
    parser = argparse.ArgumentParser(prog="make bench-tail ARGS=...", description=__doc__)
    parser.add_argument("--requests", type=int, default=TAIL_REQUESTS)
    parser.add_argument("--share", type=float, default=TAIL_SHARE, help="share of the sustained rate")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    options = parser.parse_args()
    try:
        require_cores()
        require_wrk()
        with (
            tempfile.TemporaryDirectory(prefix="sartiq-bench-") as folder,
            run_environment(Path(folder), SCALE) as environment,
        ):
            tail = measure_tail(environment, options.requests, options.share)
    except DependencyMissing as error:
        print(f"Not measured: {error} is missing", file=sys.stderr)
        return 2
    table = "\n".join(format_table(tail))
    print(table)
    if options.write:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        page = f"{head}{BEGIN}\n{table}\n\n{END}{rest.partition(END)[2]}"
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
