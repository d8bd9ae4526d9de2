"""Measure the gain of a second worker: servers with one and two processes receive the same reads in turns.

Server, PostgreSQL and load generator share both cores, with one worker and with two, so only the number of
workers differs. A second worker can gain at most the CPU time that one worker leaves idle.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace

import httpx

from tools.bench.closed_loop import LoadResult, run_load
from tools.bench.environment import BOTH_CORES, BenchEnvironment, start_server
from tools.bench.operations import OPERATIONS_BY_NAME
from tools.bench.processes import cpu_seconds_by_process, proportional_bytes
from tools.bench.servers import OURS, ServerSpec
from tools.bench.statistics import Estimate, paired_ratios, rotate
from tools.servers.processes import run_redis

COUNTS = (1, 2)
CONNECTIONS = 32
# Background work would disturb the measurement.
NO_BACKGROUND_WORK = {"RENDER_WORKERS": "0", "WEBHOOK_SENDERS": "0"}


@dataclass(frozen=True)
class Workers:
    """The results with one worker and with two, round by round."""

    one: Sequence[LoadResult]
    two: Sequence[LoadResult]
    cores: Sequence[float]
    """How many cores server, PostgreSQL and load generator used with one worker."""
    further_bytes: int
    """The memory of a second worker after the load; what both use is counted once."""

    def gain(self) -> Estimate:
        """Return the ratio of the request rates, two workers to one."""
        return paired_ratios([each.rate for each in self.two], [each.rate for each in self.one])

    def price(self) -> Estimate:
        """Return the ratio of the CPU times per request, two workers to one."""
        return paired_ratios(
            *([each.cpu_seconds_per_1000 for each in loads] for loads in (self.two, self.one))
        )


def _with_workers(count: int) -> ServerSpec:
    return replace(OURS, name=f"workers_{count}", command=(*OURS.command, "--workers", str(count)))


def measure_workers(environment: BenchEnvironment, database: str, rounds: int, seconds: int) -> Workers:
    """Start a server with one worker and one with two, and measure them in turn."""
    operation = OPERATIONS_BY_NAME["read"]
    results: dict[int, list[LoadResult]] = {count: [] for count in COUNTS}
    cores: dict[int, list[float]] = {count: [] for count in COUNTS}
    with environment.using_both_cores(), contextlib.ExitStack() as stack:
        variables = {**NO_BACKGROUND_WORK, "CELERY_BROKER_URL": stack.enter_context(run_redis()).url}
        servers = {
            count: stack.enter_context(
                start_server(environment, _with_workers(count), database, cores=BOTH_CORES, **variables)
            )
            for count in COUNTS
        }
        with httpx.Client() as client:
            requests = operation.requests(client, environment.scale)
        for number in range(rounds + 1):
            for count in rotate(COUNTS, number):
                before = cpu_seconds_by_process(environment.cluster.process_id)
                generator_before = _load_generator_cpu_seconds()
                result = run_load(servers[count], operation, requests, CONNECTIONS, seconds)
                after = cpu_seconds_by_process(environment.cluster.process_id)
                # Processes that started or ended in between are left out.
                database = sum(after[each] - before[each] for each in before.keys() & after)
                generator = _load_generator_cpu_seconds() - generator_before
                # The first round is a warm-up.
                if number:
                    results[count].append(result)
                    cores[count].append((result.cpu_seconds + database + generator) / result.seconds)
        one, two = (proportional_bytes(servers[count].process_id) for count in COUNTS)
    return Workers(results[1], results[2], cores[1], two - one)


def _load_generator_cpu_seconds() -> float:
    """Return the CPU seconds of all load generators that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
