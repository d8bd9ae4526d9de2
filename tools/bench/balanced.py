"""`make bench-balanced`: four server processes behind HAProxy and PgBouncer, beside one behind the same.

First the four processes must act as one server: limits in Redis, idempotency keys, revoked sessions and API
keys, event streams, and row-level security in transactions that share connections. Two workers, behind the
same PgBouncer, run a generation and then wait. Then the same requests are sent to one process and to four in
turn. Server, workers, PostgreSQL, PgBouncer, HAProxy and load generator share both cores. If the machine was
steady, the results replace the table of the page about performance. The exit status is 1 if a check fails or
a gain misses its target, and 2 if nothing could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from tools.bench.balanced_checks import KEY_LIMIT, WATCHED, BalancedServers, run_checks
from tools.bench.balanced_costs import CPU_HEADS, HEADS, CostCounter, SharedCosts
from tools.bench.balancing import require_programs, run_haproxy
from tools.bench.calm import measure_busy_share, wait_until_calm
from tools.bench.closed_loop import LoadResult, require_wrk, run_load
from tools.bench.environment import (
    BOTH_CORES,
    BenchEnvironment,
    BenchServer,
    run_environment,
    start_server,
)
from tools.bench.operations import OPERATIONS_BY_NAME
from tools.bench.published_tables import publish_table
from tools.bench.rows import Scale, generation_id
from tools.bench.servers import OURS
from tools.bench.statistics import Estimate, paired_ratios, rotate
from tools.bench.tables import markdown_table
from tools.bench.targets import TARGETS, format_estimate
from tools.servers.pgbouncer import run_pgbouncer
from tools.servers.processes import DependencyMissing, run_jobs_processes, run_redis
from tools.servers.server import ServerDidNotStart, free_port

DATABASE = "balanced"
WORKERS = 2
CONNECTIONS = 32
POOLED_CONNECTIONS = 20
"""Connections of PgBouncer to PostgreSQL. The servers together open more connections to PgBouncer."""
OPERATIONS = ("read", "list_20", "create")
SCALE = Scale(100, 500)


@dataclass(frozen=True)
class Balanced:
    """The processes, the balancer before one of them and before all, and the counter of what they share."""

    servers: BalancedServers
    one: BenchServer
    every: BenchServer
    counter: CostCounter


@dataclass
class Comparison:
    """The results of an operation with one process and with all, and what the requests to all cost."""

    title: str
    one: list[LoadResult] = field(default_factory=list)
    every: list[LoadResult] = field(default_factory=list)
    costs: list[SharedCosts] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Return the number of failed requests."""
        return sum(each.errors for each in (*self.one, *self.every))

    def gain(self) -> Estimate:
        """Return the ratio of the request rates, all processes to one."""
        return paired_ratios(*([each.rate for each in loads] for loads in (self.every, self.one)))

    def list_cells(self) -> Iterator[str]:
        """Yield the cells of the table of rates."""
        rates = (statistics.median(each.rate for each in loads) for loads in (self.one, self.every))
        yield from (self.title, *(f"{rate:,.0f}" for rate in rates), format_estimate(self.gain()))
        yield str(self.errors)

    def list_counts(self) -> Iterator[str]:
        """Yield the cells of the table of counts, from the last round."""
        yield self.title
        yield from self.costs[-1].list_counts(self.every[-1].requests)

    def list_cpu(self) -> Iterator[str]:
        """Yield the cells of the table of CPU times, from the last round."""
        yield self.title
        yield from self.costs[-1].list_cpu(self.every[-1].requests)


@contextlib.contextmanager
def run_balanced(environment: BenchEnvironment, count: int) -> Iterator[Balanced]:
    """Run the processes, and what they share."""
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
            run_pgbouncer(
                environment.folder / "pgbouncer", database, POOLED_CONNECTIONS, stats_users="sartiq"
            )
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

        def start_workers() -> None:
            folder = Path(tempfile.mkdtemp(prefix="workers", dir=environment.folder))
            variables = OURS.environment(folder, ports[0], pooled) | settings
            variables["MEDIA_DIR"] = str(environment.media)
            commands = ["worker"] * WORKERS
            stack.enter_context(run_jobs_processes(folder, variables, *commands, python=OURS.command[0]))

        checked = BalancedServers(balancers[1].url, processes, narrow, environment.scale, start_workers)
        counter = CostCounter(
            pooled, environment.admin_url(DATABASE), broker.port, environment.cluster.process_id
        )
        yield Balanced(checked, *balancers, counter)


def compare(
    environment: BenchEnvironment, balanced: Balanced, rounds: int, seconds: int
) -> Iterator[Comparison]:
    """Yield the comparison of each operation, measured in turns."""
    for name in OPERATIONS:
        operation = OPERATIONS_BY_NAME[name]
        with httpx.Client(base_url=balanced.every.url, timeout=60) as client:
            requests = operation.requests(client, environment.scale)
        comparison = Comparison(operation.title)
        for number in range(rounds + 1):
            for server in rotate((balanced.one, balanced.every), number):
                before = balanced.counter.read()
                load = run_load(server, operation, requests, CONNECTIONS, seconds)
                costs = balanced.counter.read() - before
                # The first round is a warm-up.
                if number and server is balanced.every:
                    comparison.every.append(load)
                    comparison.costs.append(costs)
                elif number:
                    comparison.one.append(load)
        yield comparison


def report_checks(servers: BalancedServers) -> bool:
    """Run and print the checks; return whether all passed."""
    errors = []
    for name, error in run_checks(servers):
        errors += [error] if error else []
        print(f"failed: {name}: {error!r}" if error else f"passed: {name}", flush=True)
    return not errors


def main() -> int:
    """Check, measure, print and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-balanced ARGS=...", description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of one measurement in one round")
    parser.add_argument(
        "--wait", type=float, default=60, help="the longest wait for a calm machine, in seconds"
    )
    options = parser.parse_args()
    target = TARGETS["balanced"]
    try:
        require_wrk()
        require_programs()
        with (
            tempfile.TemporaryDirectory(prefix="sartiq-bench-") as folder,
            run_environment(Path(folder), SCALE) as environment,
            run_balanced(environment, options.processes) as balanced,
        ):
            is_met = report_checks(balanced.servers)
            is_steady = wait_until_calm(options.wait, print, lambda: measure_busy_share(BOTH_CORES))
            compared = []
            for comparison in compare(environment, balanced, options.rounds, options.seconds):
                compared.append(comparison)
                print(" | ".join(comparison.list_cells()), flush=True)
                is_met = is_met and not comparison.errors and target.is_met(comparison.gain().median)
            heads = ("Requests per second", "1 process", f"{options.processes} processes", "gain", "errors")
            lines = [
                *markdown_table(heads, [tuple(each.list_cells()) for each in compared]),
                *markdown_table(HEADS, [tuple(each.list_counts()) for each in compared]),
                *markdown_table(CPU_HEADS, [tuple(each.list_cpu()) for each in compared]),
            ]
            print("\n".join(lines))
            print(publish_table("bench-balanced", lines, is_steady=is_steady))
            print(f"{target.title}: {target.format_limit()}")
    except DependencyMissing as missing:
        print(f"Not measured: missing {missing}", file=sys.stderr)
        return 2
    except ServerDidNotStart as error:
        print(f"Not measured: {error}", file=sys.stderr)
        return 2
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
