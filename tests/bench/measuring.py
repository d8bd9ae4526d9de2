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

from tests.bench.closed_loop import Load, load
from tests.bench.figures import rotated
from tests.bench.open_loop import Latencies, ask_at
from tests.bench.operations import NAMED, OPERATIONS, Operation, Request, fetch
from tests.bench.processes import peak_bytes, resident_bytes
from tests.bench.progress import Progress
from tests.bench.serving import Serving, Stage, started
from tests.bench.statements import statements_per_list

logger = logging.getLogger(__name__)

REQUESTS_BEFORE_MEMORY = 100_000
# What a run is thought to take, beside what its plan says.
SECONDS_BESIDE = 0.3
SECONDS_OF_A_MILLION_ROWS, SECONDS_OF_A_COPIED_MILLION, SECONDS_OF_A_START = 120, 20, 2
REQUESTS_A_SECOND = 400
DEPTHS = (("list_100", "cursor_100"), ("everybody", "everybody_deep"))
"""First pages, and deep ones of the same lists."""
ONE_BY_ONE = 20
WARM_UP = ("list_100", "update", "create")
"""What runs through all that the others need."""
MANY = ("read", "list_20", "not_modified", "create")
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
        asking = loads * (self.seconds + SECONDS_BESIDE) + open_loops * (
            self.open_loop_seconds + SECONDS_BESIDE
        )
        rows_made = SECONDS_OF_A_MILLION_ROWS * rows / 1e6
        copied = (contenders + 1) * SECONDS_OF_A_COPIED_MILLION * rows / 1e6
        started = contenders * self.starts * SECONDS_OF_A_START
        memory = self.requests_before_memory / REQUESTS_A_SECOND
        workers = 2 * (1 + self.worker_rounds) * self.seconds + 4 * SECONDS_OF_A_START
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
class Seen:
    """What was measured of one contender."""

    starts: list[float]
    """Seconds from each start to the first answer."""
    idle_bytes: int = 0
    later_bytes: int = 0
    peak_bytes: int = 0
    requests: int = 0
    statements: dict[int, int] = field(default_factory=dict)
    loads: dict[tuple[str, int], list[Load]] = field(default_factory=lambda: defaultdict(list))
    latencies: dict[tuple[str, float], list[Latencies]] = field(default_factory=lambda: defaultdict(list))
    alone: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of answers to requests that came one by one, by operation and round."""

    @property
    def errors(self) -> int:
        """Requests that went wrong, in both loops."""
        found = chain(*self.loads.values(), *self.latencies.values())
        return sum(each.errors for each in found)

    def rates(self, operation: str, connections: int) -> list[float]:
        """Return the requests a second of each round."""
        return [each.rate for each in self.loads.get((operation, connections), [])]


def seconds_of(client: httpx.Client, request: Request, operation: Operation) -> float:
    """Return how long one answer took."""
    began = time.perf_counter()
    fetch(client, request, operation.status)
    return time.perf_counter() - began


class Measuring:
    """A run over contenders that serve already."""

    def __init__(self, stage: Stage, servers: list[Serving], plan: Plan, progress: Progress) -> None:
        self.stage, self.servers, self.plan, self.progress = stage, servers, plan, progress
        self.failed: dict[str, str] = {}
        """Who could not be measured, by title, and why."""
        self.seen = {server.contender.name: Seen([server.seconds_to_first_answer]) for server in servers}
        self._prepared: dict[tuple[str, str], list[Request]] = {}

    def run(self) -> dict[str, Seen]:
        """Measure everything, and return it by contender."""
        self.progress.tell("first and deep pages")
        self._depth()
        self.progress.tell("warm-up")
        self._each(0, self._warm_up)
        self._closed_loop()
        self._open_loop()
        self.progress.tell("starts, statements and memory")
        self._each(0, self._look_at)
        return self.seen

    def _each(self, number: int, measure: Callable[[Serving], None]) -> None:
        """Measure one after the other. Who fails is left out from then on; without ours there is nothing."""
        for server in rotated(self.servers, number):
            try:
                measure(server)
            except Exception as error:
                if server.contender.is_ours:
                    raise
                logger.exception("%s is measured no more", server.contender.title)
                self.servers.remove(server)
                self.failed[server.contender.title] = repr(error)
                del self.seen[server.contender.name]

    def _warm_up(self, server: Serving) -> None:
        for name in WARM_UP:
            load(server, NAMED[name], self._requests(server, NAMED[name]), 8, self.plan.seconds)
        self.seen[server.contender.name].idle_bytes = resident_bytes(server.process_id)

    def _closed_loop(self) -> None:
        for number in range(self.plan.rounds):
            for operation in OPERATIONS:
                many = operation.name in self.plan.many_connections
                for connections in (8, 64) if many else (8,):
                    what = f"{operation.title}, {connections} connections"
                    self.progress.tell(f"round {number + 1} of {self.plan.rounds}: {what}")
                    measure = partial(self._load, operation=operation, connections=connections)
                    self._each(number, measure)

    def _load(self, server: Serving, operation: Operation, connections: int) -> None:
        requests = self._requests(server, operation)
        found = load(server, operation, requests, connections, self.plan.seconds)
        seen = self.seen[server.contender.name]
        seen.loads[operation.name, connections].append(found)
        seen.requests += found.requests

    def _requests(self, server: Serving, operation: Operation) -> list[Request]:
        """Return what is asked; places stay what they are, the tags of what changes do not."""
        key = (server.contender.name, operation.name)
        if key not in self._prepared or operation.feeds_back:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                self._prepared[key] = operation.requests(client, self.stage.scale)
        return self._prepared[key]

    def ceiling(self, operation: str) -> float:
        """Return how many requests a second the slowest contender bears, over few connections and many."""
        return min(
            min(median(rates) for connections in (8, 64) if (rates := seen.rates(operation, connections)))
            for seen in self.seen.values()
        )

    def _open_loop(self) -> None:
        for number in range(self.plan.open_loop_rounds):
            for name in self.plan.open_loop:
                for share in self.plan.shares:
                    rate = share * self.ceiling(name)
                    self.progress.tell(f"open loop: {NAMED[name].title}, {rate:.0f} requests a second")
                    measure = partial(self._ask_at, operation=NAMED[name], share=share, rate=rate)
                    self._each(number, measure)

    def _ask_at(self, server: Serving, operation: Operation, share: float, rate: float) -> None:
        requests = self._requests(server, operation)
        found = ask_at(server, operation, requests, rate, self.plan.open_loop_seconds)
        seen = self.seen[server.contender.name]
        seen.latencies[operation.name, share].append(found)
        seen.requests += len(found.seconds)

    def _depth(self) -> None:
        """Ask for first and for deep pages in turn, one at a time: nothing else is of interest here.

        It comes first of all: products that are made have no photographs, so the page that shows them is
        answered faster than the others.
        """
        ours = next(server for server in self.servers if server.contender.is_ours)
        seen = self.seen[ours.contender.name]
        for number in range(self.plan.rounds + 1):
            for name in rotated([name for pair in DEPTHS for name in pair], number):
                operation = NAMED[name]
                requests = islice(cycle(self._requests(ours, operation)), ONE_BY_ONE)
                with httpx.Client(base_url=ours.url, timeout=60) as client:
                    found = [seconds_of(client, each, operation) for each in requests]
                # The first round was a warm-up.
                if number:
                    seen.alone[name].append(found)

    def _look_at(self, server: Serving) -> None:
        seen = self.seen[server.contender.name]
        for _ in range(self.plan.starts - 1):
            with started(self.stage, server.contender, server.database) as another:
                seen.starts.append(another.seconds_to_first_answer)
        for rows in (1, 100):
            seen.statements[rows] = statements_per_list(self.stage, server, rows)
        for name in cycle(MANY):
            if not server.contender.is_ours or seen.requests >= self.plan.requests_before_memory:
                break
            seen.requests += load(server, NAMED[name], self._requests(server, NAMED[name]), 64, 5).requests
        seen.later_bytes = resident_bytes(server.process_id)
        seen.peak_bytes = peak_bytes(server.process_id)
