"""`make bench-balanced`: four server processes behind HAProxy and PgBouncer, beside one behind the same.

First the four processes must act as one server: limits in Redis, idempotency keys, revoked sessions, event
streams, and row-level security in transactions that share connections. Then the same reads are sent to one
process and to four in turn. Server, PostgreSQL, PgBouncer, HAProxy and load generator share both cores. The
exit status is 1 if a check fails or the gain misses its target, and 2 if nothing could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx

from tests.e2e.server import ServerDidNotStart, free_port
from tests.resilience.processes import DependencyMissing, run_redis
from tests.support.servers.pgbouncer import run_pgbouncer
from tests.tools.bench.balanced_checks import KEY_LIMIT, WATCHED, BalancedServers, find_failures
from tests.tools.bench.balancing import require_programs, run_haproxy
from tests.tools.bench.calm import measure_busy_share, wait_until_calm
from tests.tools.bench.closed_loop import LoadResult, require_wrk, run_load
from tests.tools.bench.environment import (
    BOTH_CORES,
    BenchEnvironment,
    BenchServer,
    run_environment,
    start_server,
)
from tests.tools.bench.operations import OPERATIONS_BY_NAME
from tests.tools.bench.rows import Scale, generation_id
from tests.tools.bench.servers import OURS
from tests.tools.bench.statistics import paired_ratios, rotate
from tests.tools.bench.targets import TARGETS, format_estimate

DATABASE = "balanced"
CONNECTIONS = 32
POOLED_CONNECTIONS = 20
"""Connections of PgBouncer to PostgreSQL. The servers together open more connections to PgBouncer."""
OPERATIONS = ("read", "list_20", "create")
SCALE = Scale(100, 500)


@contextlib.contextmanager
def run_balanced(
    environment: BenchEnvironment, count: int
) -> Iterator[tuple[BalancedServers, BenchServer, BenchServer]]:
    """Run the processes; yield them, and the balancer before one of them and before all."""
    environment.copy(DATABASE)
    # A pending generation that no worker runs, for the check of event streams.
    watched = generation_id(WATCHED)
    environment.run(
        f"DELETE FROM predictions WHERE generation_id = '{watched}'",  # noqa: S608 - the id is made by the benchmark
        f"UPDATE generations SET status = 'pending' WHERE id = '{watched}'",  # noqa: S608 - as above
        database=DATABASE,
    )
    one, every = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment.using_both_cores())
        broker = stack.enter_context(run_redis())
        database = environment.url(DATABASE)
        pooled = stack.enter_context(
            run_pgbouncer(environment.folder / "pgbouncer", database, POOLED_CONNECTIONS)
        )
        narrow = stack.enter_context(run_pgbouncer(environment.folder / "narrow", database, connections=3))
        settings = {
            "DATABASE_URL": pooled,
            "MIGRATION_DATABASE_URL": database,
            "CELERY_BROKER_URL": broker.url,
            "TRUSTED_PROXIES": "127.0.0.1",
            "LIMIT_KEY": str(KEY_LIMIT),
        }
        servers = [
            stack.enter_context(start_server(environment, OURS, DATABASE, BOTH_CORES, **settings))
            for _ in range(count)
        ]
        ports = [int(server.url.rpartition(":")[2]) for server in servers]
        stack.enter_context(
            run_haproxy(environment.folder, {"one": (one, ports[:1]), "every": (every, ports)})
        )
        balancers = [replace(servers[0], url=f"http://127.0.0.1:{port}") for port in (one, every)]
        processes = [server.url for server in servers]
        yield BalancedServers(balancers[1].url, processes, narrow, environment.scale), *balancers


def compare(
    environment: BenchEnvironment, one: BenchServer, every: BenchServer, rounds: int, seconds: int
) -> Iterator[tuple[str, list[LoadResult], list[LoadResult]]]:
    """Yield for each operation its name and the results of one process and of all, round by round."""
    for name in OPERATIONS:
        operation = OPERATIONS_BY_NAME[name]
        with httpx.Client(base_url=every.url, timeout=60) as client:
            requests = operation.requests(client, environment.scale)
        results: dict[str, list[LoadResult]] = {one.url: [], every.url: []}
        for number in range(rounds + 1):
            for server in rotate((one, every), number):
                load = run_load(server, operation, requests, CONNECTIONS, seconds)
                # The first round is a warm-up.
                if number:
                    results[server.url].append(load)
        yield operation.title, results[one.url], results[every.url]


def main() -> int:
    """Check, measure, print and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-balanced ARGS=...", description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of one measurement in one round")
    parser.add_argument(
        "--wait", type=float, default=300, help="the longest wait for a calm machine, in seconds"
    )
    options = parser.parse_args()
    target = TARGETS["balanced"]
    try:
        require_wrk()
        require_programs()
        with (
            tempfile.TemporaryDirectory(prefix="sartiq-bench-") as folder,
            run_environment(Path(folder), SCALE) as environment,
            run_balanced(environment, options.processes) as (servers, one, every),
        ):
            failures = list(find_failures(servers))
            print("\n".join(f"failed: {each}" for each in failures) or "all checks passed", flush=True)
            wait_until_calm(options.wait, print, lambda: measure_busy_share(BOTH_CORES))
            is_met = not failures
            for title, alone, together in compare(environment, one, every, options.rounds, options.seconds):
                gain = paired_ratios(*([each.rate for each in loads] for loads in (together, alone)))
                errors = sum(each.errors for each in (*alone, *together))
                is_met = is_met and not errors and target.is_met(gain.median)
                print(
                    f"{title}: {options.processes} processes / 1: {format_estimate(gain)}, "
                    f"{target.format_limit(target.limit)}; {errors} errors",
                    flush=True,
                )
    except DependencyMissing as missing:
        print(f"Not measured: missing {missing}", file=sys.stderr)
        return 2
    except ServerDidNotStart as error:
        print(f"Not measured: {error}", file=sys.stderr)
        return 2
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
