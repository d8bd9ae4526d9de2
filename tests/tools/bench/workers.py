"""Whether a second worker pays: servers of one and of two processes answer the same reads in turns.

Server, PostgreSQL and load share both cores, for one worker as for two: nothing but their number differs.
What one worker leaves idle of them is all that a second one can win.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace

import httpx

from tests.tools.bench.closed_loop import LoadResult, run_load
from tests.tools.bench.environment import BOTH_CORES, BenchEnvironment, start_server
from tests.tools.bench.operations import OPERATIONS_BY_NAME
from tests.tools.bench.processes import cpu_seconds_by_process
from tests.tools.bench.servers import OURS, ServerSpec
from tests.tools.bench.statistics import Estimate, paired_ratios, rotate

COUNTS = (1, 2)
CONNECTIONS = 32
# What these servers do beside would only disturb.
NO_BACKGROUND_WORK = {"RENDER_WORKERS": "0", "WEBHOOK_SENDERS": "0"}


@dataclass(frozen=True)
class Workers:
    """What was measured of one worker and of two, round by round."""

    one: Sequence[LoadResult]
    two: Sequence[LoadResult]
    cores: Sequence[float]
    """How many cores server, PostgreSQL and load used with one worker."""

    def gain(self) -> Estimate:
        """Return how many times as many requests a second two answer."""
        return paired_ratios([each.rate for each in self.two], [each.rate for each in self.one])

    def price(self) -> Estimate:
        """Return how many times as long two work for a request."""
        return paired_ratios(
            *([each.cpu_seconds_per_1000 for each in loads] for loads in (self.two, self.one))
        )


def _with_workers(count: int) -> ServerSpec:
    command = (OURS.command[0], "-m", "uvicorn", "wsgi:app", "--lifespan", "on", "--workers", str(count))
    told = ("--port", "{port}", "--no-access-log", "--timeout-keep-alive", "30", "--log-level", "warning")
    return replace(OURS, name=f"workers_{count}", command=(*command, *told))


def measure_workers(environment: BenchEnvironment, database: str, rounds: int, seconds: int) -> Workers:
    """Start both and let them take turns."""
    operation = OPERATIONS_BY_NAME["read"]
    found: dict[int, list[LoadResult]] = {count: [] for count in COUNTS}
    cores: dict[int, list[float]] = {count: [] for count in COUNTS}
    with environment.using_both_cores(), contextlib.ExitStack() as stack:
        servers = {
            count: stack.enter_context(
                start_server(
                    environment, _with_workers(count), database, cores=BOTH_CORES, **NO_BACKGROUND_WORK
                )
            )
            for count in COUNTS
        }
        with httpx.Client() as client:
            requests = operation.requests(client, environment.scale)
        for number in range(rounds + 1):
            for count in rotate(COUNTS, number):
                before, loading = (
                    cpu_seconds_by_process(environment.cluster.process_id),
                    _load_generator_cpu_seconds(),
                )
                seen = run_load(servers[count], operation, requests, CONNECTIONS, seconds)
                after = cpu_seconds_by_process(environment.cluster.process_id)
                # Who came or ended meanwhile does not count.
                beside = sum(after[each] - before[each] for each in before.keys() & after)
                worked = seen.cpu_seconds + beside + _load_generator_cpu_seconds() - loading
                # The first round was a warm-up.
                if number:
                    found[count].append(seen)
                    cores[count].append(worked / seen.seconds)
    return Workers(found[1], found[2], cores[1])


def _load_generator_cpu_seconds() -> float:
    """Return how many seconds whatever made load and is over has worked."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
