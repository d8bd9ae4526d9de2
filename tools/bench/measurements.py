"""One run of the benchmark: rounds in which the servers take turns, and the results of each server."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, cycle, islice
from statistics import median
from typing import TypeVar

import httpx

from tools.bench.calm import Steadiness, measure_speed, run_steadily
from tools.bench.closed_loop import LoadResult, run_load
from tools.bench.environment import BOTH_CORES, BenchEnvironment, BenchServer, start_server
from tools.bench.open_loop import Latencies, run_at_rate
from tools.bench.operations import OPERATIONS, OPERATIONS_BY_NAME, Operation, Request, fetch
from tools.bench.processes import peak_bytes, resident_bytes, wait_until_idle
from tools.bench.progress import Progress
from tools.bench.statements import count_statements_per_list
from tools.bench.statistics import percentile, rotate

Result = TypeVar("Result")
logger = logging.getLogger(__name__)

REQUESTS_BEFORE_MEMORY = 100_000
# Estimates of the time that a run takes in addition to the durations of its plan.
OVERHEAD_SECONDS = 0.3
SECONDS_PER_MILLION_ROWS, SECONDS_PER_MILLION_COPIED_ROWS, SECONDS_PER_START = 120, 20, 2
REQUESTS_PER_SECOND, OPEN_LOOP_REQUESTS_PER_SECOND = 400, 180
TAIL_REQUESTS = 5_000
"""The number of requests from which a 99th percentile is reported: 50 of them are slower."""
DEPTHS = (("list_100", "cursor_100"), ("all_rows", "all_rows_deep"))
"""Pairs of a first page and a deep page of the same list."""
PAGES = ("list_1", "list_3", "list_20", "list_100")
"""First pages of more and more rows of the same list."""
SEQUENTIAL_REQUESTS, DEPTH_ROUNDS = 20, 7
DEPTH_WARM_UP_REQUESTS = 120
"""Until each of the server's eight connections has prepared the statement and has its final plan: after ten
executions."""
WARM_UP = ("list_100", "update", "create")
"""Operations that together use all code and statements of the other ones."""
MEMORY_OPERATIONS = ("read", "list_20", "not_modified", "create")
"""Operations that run in turn before memory is measured again."""


@dataclass(frozen=True)
class Plan:
    """The number of rounds and the durations of a run. Seconds are those of one measurement in one round."""

    operations: tuple[str, ...]
    rounds: int
    seconds: int
    many_connections: tuple[str, ...]
    """The operations that are also measured with 64 connections."""
    open_loop: tuple[str, ...]
    open_loop_requests: Mapping[float, int]
    """How many requests each server gets at each share of the rate that the slowest server sustains."""
    open_loop_rounds: int
    requests_before_memory: int
    """The number of requests that this server handles before its memory is measured again."""
    starts: int
    cost_seconds: float
    """The duration of the comparison with and without each guarantee."""
    worker_rounds: int

    def expected_seconds(self, servers: int, rows: int) -> float:
        """Return an estimate of the duration of the whole run, including its preparation."""
        loads = len(WARM_UP) + self.rounds * (len(self.operations) + len(self.many_connections))
        requests = len(self.open_loop) * sum(self.open_loop_requests.values())
        measuring = loads * (self.seconds + OVERHEAD_SECONDS) + requests / OPEN_LOOP_REQUESTS_PER_SECOND
        creating_rows = SECONDS_PER_MILLION_ROWS * rows / 1e6
        copying_rows = (servers + 1) * SECONDS_PER_MILLION_COPIED_ROWS * rows / 1e6
        starting = servers * self.starts * SECONDS_PER_START
        memory = self.requests_before_memory / REQUESTS_PER_SECOND
        workers = 2 * (1 + self.worker_rounds) * self.seconds + 4 * SECONDS_PER_START
        preparing = creating_rows + copying_rows + starting
        return servers * measuring + preparing + memory + workers + self.cost_seconds


QUICK = Plan(
    operations=("read", "not_modified", "list_1", "list_3", "list_20", "list_100", "update", "create"),
    rounds=3,
    seconds=1,
    many_connections=("create",),
    open_loop=("create",),
    open_loop_requests={0.8: TAIL_REQUESTS},
    open_loop_rounds=2,
    requests_before_memory=0,
    starts=3,
    cost_seconds=20,
    worker_rounds=3,
)
FULL = Plan(
    operations=tuple(operation.name for operation in OPERATIONS),
    rounds=3,
    seconds=3,
    many_connections=tuple(operation.name for operation in OPERATIONS),
    open_loop=("read", "list_20", "list_100", "create"),
    open_loop_requests={0.5: 1_500, 0.8: TAIL_REQUESTS},
    open_loop_rounds=2,
    requests_before_memory=REQUESTS_BEFORE_MEMORY,
    starts=3,
    cost_seconds=180,
    worker_rounds=15,
)


@dataclass
class ServerResults:
    """The results of one server."""

    starts: list[float]
    """CPU seconds of each start until the first response."""
    idle_bytes: int = 0
    warm_bytes: int = 0
    """After the first round, when every operation has run with all connections."""
    loaded_bytes: int = 0
    peak_bytes: int = 0
    requests: int = 0
    statements: dict[int, int] = field(default_factory=dict)
    loads: dict[tuple[str, int], list[LoadResult]] = field(default_factory=lambda: defaultdict(list))
    latencies: dict[tuple[str, float], list[Latencies]] = field(default_factory=lambda: defaultdict(list))
    sequential: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    """Latencies in seconds of requests that were sent one by one, by operation and round."""

    @property
    def errors(self) -> int:
        """Return the number of failed requests of the closed and the open loop."""
        found = chain(*self.loads.values(), *self.latencies.values())
        return sum(each.errors for each in found)

    def latency_percentile(self, operation: str, share: float, part: float) -> float | None:
        """Return a percentile (`part`, from 0 to 1) over the requests of all rounds in milliseconds."""
        rounds = self.latencies.get((operation, share), [])
        seconds = list(chain.from_iterable(each.seconds for each in rounds))
        return 1000 * percentile(seconds, part) if seconds else None

    def rates(self, operation: str, connections: int) -> list[float]:
        """Return the requests per second of each round."""
        return [each.rate for each in self.loads.get((operation, connections), [])]


def time_request(client: httpx.Client, request: Request, operation: Operation) -> float:
    """Send a request and return its latency in seconds."""
    started_at = time.perf_counter()
    fetch(client, request, operation.status)
    return time.perf_counter() - started_at


class BenchmarkRun:
    """A run that measures servers that have already started."""

    def __init__(
        self,
        environment: BenchEnvironment,
        servers: list[BenchServer],
        plan: Plan,
        progress: Progress,
        steadiness: Steadiness | None = None,
    ) -> None:
        self.environment, self.servers, self.plan, self.progress = environment, servers, plan, progress
        self.steadiness = steadiness or Steadiness()
        self.failed: dict[str, str] = {}
        """The error of each server that could not be measured, by the server's title."""
        self.results = {server.spec.name: ServerResults([server.start_cpu_seconds]) for server in servers}
        self._prepared: dict[tuple[str, str], list[Request]] = {}

    def run(self) -> dict[str, ServerResults]:
        """Measure everything and return the results by the name of the server."""
        self.progress.report("first and deep pages")
        self._measure_depth()
        self.progress.report("warm-up")
        self._for_each_server(0, self._warm_up)
        self._closed_loop()
        self._open_loop()
        self.progress.report("starts, statements and memory")
        self._for_each_server(0, self._measure_memory)
        return self.results

    def _for_each_server(self, number: int, measure: Callable[[BenchServer], None]) -> None:
        """Measure one server after the other.

        A peer that fails is left out from then on. A failure of our own server ends the run.
        """
        for server in rotate(self.servers, number):
            try:
                measure(server)
            except Exception as error:
                if server.spec.is_ours:
                    raise
                logger.exception("%s failed and is left out of the rest of the run", server.spec.title)
                self.servers.remove(server)
                self.failed[server.spec.title] = repr(error)
                del self.results[server.spec.name]

    def _warm_up(self, server: BenchServer) -> None:
        for name in WARM_UP:
            run_load(
                server,
                OPERATIONS_BY_NAME[name],
                self._requests(server, OPERATIONS_BY_NAME[name]),
                8,
                self.plan.seconds,
            )
        self.results[server.spec.name].idle_bytes = resident_bytes(server.process_id)

    def _vacuum(self) -> None:
        """Clean up after the writes of the last round.

        Counting the rows of a list takes up to twice as long when they were changed since the last VACUUM.
        """
        for server in self.servers:
            self.environment.run("VACUUM ANALYZE", database=server.database)

    def _measure_steadily(
        self, number: int, step: str, operation: Operation, measure: Callable[[BenchServer], Result]
    ) -> dict[str, Result]:
        """Measure all servers that have an operation in one round; return the results by server."""
        found: dict[str, Result] = {}

        def measure_one(server: BenchServer) -> None:
            if operation.name not in server.spec.missing:
                found[server.spec.name] = measure(server)

        def run_round() -> None:
            found.clear()
            self._for_each_server(number, measure_one)

        run_steadily(
            self.steadiness,
            f"{step}, round {number + 1}",
            run_round,
            self.progress.report,
            speeds=partial(measure_speed, BOTH_CORES),
        )
        return {name: each for name, each in found.items() if name in self.results}

    def _closed_loop(self) -> None:
        for number in range(self.plan.rounds):
            self._vacuum()
            for operation in (OPERATIONS_BY_NAME[name] for name in self.plan.operations):
                many = operation.name in self.plan.many_connections
                for connections in (8, 64) if many else (8,):
                    step = f"{operation.title}, {connections} connections"
                    self.progress.report(f"round {number + 1} of {self.plan.rounds}: {step}")
                    measure = partial(self._load, operation=operation, connections=connections)
                    found = self._measure_steadily(number, step, operation, measure)
                    for name, load in found.items():
                        self.results[name].loads[operation.name, connections].append(load)
                        self.results[name].requests += load.requests
            if number == 0:
                for server in self.servers:
                    self.results[server.spec.name].warm_bytes = resident_bytes(server.process_id)

    def _load(self, server: BenchServer, operation: Operation, connections: int) -> LoadResult:
        load = run_load(
            server,
            operation,
            self._requests(server, operation),
            connections,
            self.plan.seconds,
            self.environment.cluster.process_id,
        )
        # The requests in progress at the end, such as batches, must not slow the next measurement down.
        wait_until_idle(server.process_id)
        return load

    def _requests(self, server: BenchServer, operation: Operation) -> list[Request]:
        """Return the requests of an operation. They are reused unless the operation changes ETags."""
        key = (server.spec.name, operation.name)
        if key not in self._prepared or operation.changes_etag:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                self._prepared[key] = operation.requests(client, self.environment.scale)
        return self._prepared[key]

    def min_capacity(self, operation: str) -> float:
        """Return the lowest rate of all servers, over 8 and over 64 connections, in requests per second."""
        return min(
            median(rates)
            for results in self.results.values()
            for connections in (8, 64)
            if (rates := results.rates(operation, connections))
        )

    def _open_loop(self) -> None:
        for number in range(self.plan.open_loop_rounds):
            self._vacuum()
            for name in self.plan.open_loop:
                operation = OPERATIONS_BY_NAME[name]
                for share, count in self.plan.open_loop_requests.items():
                    rate = share * self.min_capacity(name)
                    step = f"open loop: {operation.title}, {rate:.0f} requests per second"
                    self.progress.report(step)
                    measure = partial(
                        self._measure_at_rate,
                        operation=operation,
                        rate=rate,
                        # Random arrivals: a few more than needed, so that no server gets fewer.
                        seconds=1.05 * count / self.plan.open_loop_rounds / rate,
                    )
                    found = self._measure_steadily(number, step, operation, measure)
                    for server, latencies in found.items():
                        self.results[server].latencies[name, share].append(latencies)
                        self.results[server].requests += len(latencies.seconds)

    def _measure_at_rate(
        self, server: BenchServer, operation: Operation, rate: float, seconds: float
    ) -> Latencies:
        return run_at_rate(server, operation, self._requests(server, operation), rate, seconds)

    def _measure_depth(self) -> None:
        """Measure the latency of first and deep pages of our server in turn, one request at a time.

        This must run before other measurements create products: those have no photos, so a page that shows
        them is faster than the others.
        """
        ours = next(server for server in self.servers if server.spec.is_ours)
        results = self.results[ours.spec.name]
        for number in range(DEPTH_ROUNDS + 1):
            for name in rotate([name for pair in DEPTHS for name in pair], number):
                operation = OPERATIONS_BY_NAME[name]
                count = SEQUENTIAL_REQUESTS if number else DEPTH_WARM_UP_REQUESTS
                requests = islice(cycle(self._requests(ours, operation)), count)
                with httpx.Client(base_url=ours.url, timeout=60) as client:
                    seconds = [time_request(client, each, operation) for each in requests]
                # The first round is a warm-up.
                if number:
                    results.sequential[name].append(seconds)

    def _measure_memory(self, server: BenchServer) -> None:
        results = self.results[server.spec.name]
        for _ in range(self.plan.starts - 1):
            with start_server(self.environment, server.spec, server.database) as another:
                results.starts.append(another.start_cpu_seconds)
        for rows in (1, 100):
            results.statements[rows] = count_statements_per_list(self.environment, server, rows)
        for name in cycle(MEMORY_OPERATIONS):
            if not server.spec.is_ours or results.requests >= self.plan.requests_before_memory:
                break
            results.requests += run_load(
                server, OPERATIONS_BY_NAME[name], self._requests(server, OPERATIONS_BY_NAME[name]), 64, 5
            ).requests
        results.loaded_bytes = resident_bytes(server.process_id)
        results.peak_bytes = peak_bytes(server.process_id)
