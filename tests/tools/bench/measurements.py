"""One run of the benchmark: rounds in which the contenders take turns, and what was seen of each."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, cycle, islice
from statistics import median

import httpx

from tests.tools.bench.closed_loop import LoadResult, run_load
from tests.tools.bench.environment import BenchEnvironment, BenchServer, start_server
from tests.tools.bench.open_loop import Latencies, run_at_rate
from tests.tools.bench.operations import OPERATIONS, OPERATIONS_BY_NAME, Operation, Request, fetch
from tests.tools.bench.processes import peak_bytes, resident_bytes
from tests.tools.bench.progress import Progress
from tests.tools.bench.statements import count_statements_per_list
from tests.tools.bench.statistics import rotate

logger = logging.getLogger(__name__)

REQUESTS_BEFORE_MEMORY = 100_000
# What a run is thought to take, beside what its plan says.
OVERHEAD_SECONDS = 0.3
SECONDS_PER_MILLION_ROWS, SECONDS_PER_MILLION_COPIED_ROWS, SECONDS_PER_START = 120, 20, 2
REQUESTS_PER_SECOND = 400
DEPTHS = (("list_100", "cursor_100"), ("everybody", "everybody_deep"))
"""First pages, and deep ones of the same lists."""
SEQUENTIAL_REQUESTS = 20
WARM_UP = ("list_100", "update", "create")
"""What runs through all that the others need."""
MEMORY_OPERATIONS = ("read", "list_20", "not_modified", "create")
"""What is asked in turn before memory is looked at again."""


@dataclass(frozen=True)
class Plan:
    """How long and how often things are measured. Seconds are of one measurement in one round."""

    rounds: int
    seconds: int
    many_connections: tuple[str, ...]
    """The operations that are measured with 64 connections too."""
    open_loop: tuple[str, ...]
    shares: tuple[float, ...]
    open_loop_rounds: int
    open_loop_seconds: float
    requests_before_memory: int
    """That ours has answered before its memory is looked at again."""
    starts: int
    cost_seconds: float
    """For which ours takes turns with itself without a guarantee."""
    worker_rounds: int

    def expected_seconds(self, contenders: int, rows: int) -> float:
        """Return about how long all of it takes: what is asked for, and what goes with it."""
        loads = len(WARM_UP) + self.rounds * (len(OPERATIONS) + len(self.many_connections))
        open_loops = self.open_loop_rounds * len(self.open_loop) * len(self.shares)
        asking = loads * (self.seconds + OVERHEAD_SECONDS) + open_loops * (
            self.open_loop_seconds + OVERHEAD_SECONDS
        )
        rows_made = SECONDS_PER_MILLION_ROWS * rows / 1e6
        copied = (contenders + 1) * SECONDS_PER_MILLION_COPIED_ROWS * rows / 1e6
        started = contenders * self.starts * SECONDS_PER_START
        memory = self.requests_before_memory / REQUESTS_PER_SECOND
        workers = 2 * (1 + self.worker_rounds) * self.seconds + 4 * SECONDS_PER_START
        return contenders * asking + rows_made + copied + started + memory + workers + self.cost_seconds


QUICK = Plan(
    rounds=3,
    seconds=1,
    many_connections=("read", "create"),
    open_loop=("read", "create"),
    shares=(0.8,),
    open_loop_rounds=1,
    open_loop_seconds=3,
    requests_before_memory=0,
    starts=1,
    cost_seconds=25,
    worker_rounds=7,
)
FULL = Plan(
    rounds=3,
    seconds=3,
    many_connections=tuple(operation.name for operation in OPERATIONS),
    open_loop=("read", "list_20", "list_100", "create"),
    shares=(0.5, 0.8),
    open_loop_rounds=3,
    open_loop_seconds=4,
    requests_before_memory=REQUESTS_BEFORE_MEMORY,
    starts=3,
    cost_seconds=180,
    worker_rounds=15,
)


@dataclass
class ServerResults:
    """What was measured of one contender."""

    starts: list[float]
    """Seconds from each start to the first answer."""
    idle_bytes: int = 0
    loaded_bytes: int = 0
    peak_bytes: int = 0
    requests: int = 0
    statements: dict[int, int] = field(default_factory=dict)
    loads: dict[tuple[str, int], list[LoadResult]] = field(default_factory=lambda: defaultdict(list))
    latencies: dict[tuple[str, float], list[Latencies]] = field(default_factory=lambda: defaultdict(list))
    sequential: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of answers to requests that came one by one, by operation and round."""

    @property
    def errors(self) -> int:
        """Requests that went wrong, in both loops."""
        found = chain(*self.loads.values(), *self.latencies.values())
        return sum(each.errors for each in found)

    def rates(self, operation: str, connections: int) -> list[float]:
        """Return the requests a second of each round."""
        return [each.rate for each in self.loads.get((operation, connections), [])]


def time_request(client: httpx.Client, request: Request, operation: Operation) -> float:
    """Return how long one answer took."""
    began = time.perf_counter()
    fetch(client, request, operation.status)
    return time.perf_counter() - began


class BenchmarkRun:
    """A run over contenders that serve already."""

    def __init__(
        self, environment: BenchEnvironment, servers: list[BenchServer], plan: Plan, progress: Progress
    ) -> None:
        self.stage, self.servers, self.plan, self.progress = environment, servers, plan, progress
        self.failed: dict[str, str] = {}
        """Who could not be measured, by title, and why."""
        self.results = {
            server.spec.name: ServerResults([server.seconds_to_first_response]) for server in servers
        }
        self._prepared: dict[tuple[str, str], list[Request]] = {}

    def run(self) -> dict[str, ServerResults]:
        """Measure everything, and return it by contender."""
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
        """Measure one after the other. Who fails is left out from then on; without ours there is nothing."""
        for server in rotate(self.servers, number):
            try:
                measure(server)
            except Exception as error:
                if server.spec.is_ours:
                    raise
                logger.exception("%s is measured no more", server.spec.title)
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

    def _closed_loop(self) -> None:
        for number in range(self.plan.rounds):
            for operation in OPERATIONS:
                many = operation.name in self.plan.many_connections
                for connections in (8, 64) if many else (8,):
                    what = f"{operation.title}, {connections} connections"
                    self.progress.report(f"round {number + 1} of {self.plan.rounds}: {what}")
                    measure = partial(self._load, operation=operation, connections=connections)
                    self._for_each_server(number, measure)

    def _load(self, server: BenchServer, operation: Operation, connections: int) -> None:
        requests = self._requests(server, operation)
        found = run_load(server, operation, requests, connections, self.plan.seconds)
        seen = self.results[server.spec.name]
        seen.loads[operation.name, connections].append(found)
        seen.requests += found.requests

    def _requests(self, server: BenchServer, operation: Operation) -> list[Request]:
        """Return what is asked; places stay what they are, the tags of what changes do not."""
        key = (server.spec.name, operation.name)
        if key not in self._prepared or operation.changes_etag:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                self._prepared[key] = operation.requests(client, self.stage.scale)
        return self._prepared[key]

    def min_capacity(self, operation: str) -> float:
        """Return how many requests a second the slowest contender bears, over few connections and many."""
        return min(
            min(median(rates) for connections in (8, 64) if (rates := results.rates(operation, connections)))
            for results in self.results.values()
        )

    def _open_loop(self) -> None:
        for number in range(self.plan.open_loop_rounds):
            for name in self.plan.open_loop:
                for share in self.plan.shares:
                    rate = share * self.min_capacity(name)
                    self.progress.report(
                        f"open loop: {OPERATIONS_BY_NAME[name].title}, {rate:.0f} requests a second"
                    )
                    measure = partial(
                        self._measure_at_rate, operation=OPERATIONS_BY_NAME[name], share=share, rate=rate
                    )
                    self._for_each_server(number, measure)

    def _measure_at_rate(self, server: BenchServer, operation: Operation, share: float, rate: float) -> None:
        requests = self._requests(server, operation)
        found = run_at_rate(server, operation, requests, rate, self.plan.open_loop_seconds)
        seen = self.results[server.spec.name]
        seen.latencies[operation.name, share].append(found)
        seen.requests += len(found.seconds)

    def _measure_depth(self) -> None:
        """Ask for first and for deep pages in turn, one at a time: nothing else is of interest here.

        It comes first of all: products that are made have no photographs, so the page that shows them is
        answered faster than the others.
        """
        ours = next(server for server in self.servers if server.spec.is_ours)
        seen = self.results[ours.spec.name]
        for number in range(self.plan.rounds + 1):
            for name in rotate([name for pair in DEPTHS for name in pair], number):
                operation = OPERATIONS_BY_NAME[name]
                requests = islice(cycle(self._requests(ours, operation)), SEQUENTIAL_REQUESTS)
                with httpx.Client(base_url=ours.url, timeout=60) as client:
                    found = [time_request(client, each, operation) for each in requests]
                # The first round was a warm-up.
                if number:
                    seen.sequential[name].append(found)

    def _measure_memory(self, server: BenchServer) -> None:
        seen = self.results[server.spec.name]
        for _ in range(self.plan.starts - 1):
            with start_server(self.stage, server.spec, server.database) as another:
                seen.starts.append(another.seconds_to_first_response)
        for rows in (1, 100):
            seen.statements[rows] = count_statements_per_list(self.stage, server, rows)
        for name in cycle(MEMORY_OPERATIONS):
            if not server.spec.is_ours or seen.requests >= self.plan.requests_before_memory:
                break
            seen.requests += run_load(
                server, OPERATIONS_BY_NAME[name], self._requests(server, OPERATIONS_BY_NAME[name]), 64, 5
            ).requests
        seen.loaded_bytes = resident_bytes(server.process_id)
        seen.peak_bytes = peak_bytes(server.process_id)
