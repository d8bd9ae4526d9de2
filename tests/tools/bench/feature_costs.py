"""What each guarantee costs, in microseconds of the processor for one request.

The server runs in this process, whole but for the socket. What a guarantee does in functions of its own is
clocked there, by the clock of their thread. What it changes elsewhere too, such as statements, is switched
off and on again between two requests, and the work of this process and of its side of PostgreSQL compared.
Whichever way comes first in one turn of four requests comes second in the next: what disturbs the machine for
longer than a turn falls out.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from tests.tools.bench.environment import SERVER_CORE, BenchEnvironment
from tests.tools.bench.feature_toggles import FunctionTimer, disable_policies, disabled
from tests.tools.bench.in_process import HOST, InProcessServer, run_in_process_server
from tests.tools.bench.open_loop import encode_requests
from tests.tools.bench.operations import OPERATIONS_BY_NAME, Operation, UnexpectedResponse
from tests.tools.bench.processes import own_cpu_seconds, pinned_to_cores
from tests.tools.bench.statistics import Estimate

CHECKS = ("request_validation", "response_validation")
TIMED = (*CHECKS, "etags", "rate_limits")
POLICIES, AUDIT, WITH_KEY, BOTH_CHECKS = "policies", "audit", "with a key", "both checks"
TITLES = {
    "request_validation": "requests are checked against the contract's schemas",
    "response_validation": "answers are checked against the contract",
    POLICIES: "row-level security in PostgreSQL",
    "etags": "entity tags",
    AUDIT: "an event in the audit log for each write",
    "rate_limits": "requests are counted, by account and organization",
    WITH_KEY: "an Idempotency-Key, where one is sent",
}
TOGGLED = {
    "read": (POLICIES,),
    "list_100": (POLICIES, BOTH_CHECKS),
    "create": (POLICIES, AUDIT, WITH_KEY),
}
OPERATIONS = tuple(TOGGLED)
ROUNDS = {"read": 6, "list_100": 2, "create": 4}
"""How many turns of each take about as long as those of the others."""
WARM_UP, TIMES = 40, 60
"""Requests of each way before it counts, and for each turn in the list above with clocks running."""


@dataclass
class _Variant:
    """One of two ways to have a request answered."""

    server: InProcessServer
    requests: Iterator[bytes]
    switch: Callable[[], AbstractContextManager[object]] = nullcontext

    def send(self, operation: Operation) -> float:
        """Ask once, and return the seconds of work."""
        wire = next(self.requests)
        with self.switch():
            before = _cpu_seconds(self.server)
            told = self.server.send(wire)
            worked = _cpu_seconds(self.server) - before
        if not told.startswith(f"HTTP/1.1 {operation.status} ".encode()):
            raise UnexpectedResponse(f"{operation.name} was answered {told[:300]!r}")
        return worked


def _cpu_seconds(server: InProcessServer) -> float:
    return time.process_time() + sum(map(own_cpu_seconds, server.backends))


@dataclass
class _Comparison:
    """Two ways that differ by one guarantee, and the seconds that each worked for a request, turn by turn."""

    operation: Operation
    enabled: _Variant
    disabled: _Variant
    totals: list[float] = field(default_factory=list)
    totals_without: list[float] = field(default_factory=list)

    def run_round(self) -> None:
        """Ask each way twice, the one that began last time between the other's requests."""
        ways = [self.enabled, self.disabled]
        if len(self.totals) % 2:
            ways.reverse()
        seconds = {id(way): 0.0 for way in ways}
        for way in (*ways, *reversed(ways)):
            seconds[id(way)] += way.send(self.operation) / 2
        self.totals.append(seconds[id(self.enabled)])
        self.totals_without.append(seconds[id(self.disabled)])

    def warm_up(self) -> None:
        """Ask until statements are prepared and caches full."""
        for way in (self.enabled, self.disabled):
            for _ in range(WARM_UP):
                way.send(self.operation)

    def cost(self) -> Estimate:
        """Microseconds that the guarantee takes for a request."""
        return Estimate.from_samples(
            [1e6 * (one - other) for one, other in zip(self.totals, self.totals_without, strict=True)]
        )

    def share(self) -> Estimate:
        """Which part of the work the guarantee is."""
        return Estimate.from_samples(
            [(one - other) / one for one, other in zip(self.totals, self.totals_without, strict=True)]
        )


@dataclass(frozen=True)
class Costs:
    """Microseconds of work by guarantee and operation, and the share of both checks in a list of 100."""

    microseconds: Mapping[str, Mapping[str, Estimate]]
    totals: Mapping[str, Estimate]
    share_of_checks: Estimate
    timed_share: float
    """The same by their clocks."""
    rounds: Mapping[str, int]


def measure_costs(environment: BenchEnvironment, database: str, seconds: float) -> Costs:
    """Clock, and then let ours answer with and without the other guarantees in turns, for so long."""
    environment.copy("unprotected")
    disable_policies(environment.url("unprotected"))
    with (
        pinned_to_cores(SERVER_CORE),
        run_in_process_server(environment.folder, environment.url(database)) as server,
        run_in_process_server(environment.folder, environment.url("unprotected")) as another,
    ):
        pairs = {name: dict(_build_comparisons(environment, server, another, name)) for name in OPERATIONS}
        every = [pair for found in pairs.values() for pair in found.values()]
        for pair in every:
            pair.warm_up()
        clocked = {
            name: _measure_timed(_Variant(server, _build_requests(environment, server, name)), name)
            for name in OPERATIONS
        }
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for pair in every:
                for _ in range(ROUNDS[pair.operation.name]):
                    pair.run_round()
    return _build_costs(pairs, clocked)


def _build_comparisons(
    environment: BenchEnvironment, server: InProcessServer, another: InProcessServer, name: str
) -> Iterator[tuple[str, _Comparison]]:
    for guarantee in TOGGLED[name]:
        with_it, without_it = (_Variant(server, _build_requests(environment, server, name)) for _ in range(2))
        if guarantee == WITH_KEY:
            with_it.requests = map(_add_idempotency_key, with_it.requests)
        elif guarantee == POLICIES:
            # On a copy of the rows without policies.
            without_it = _Variant(
                another, _build_requests(environment, another, name), partial(disabled, POLICIES)
            )
        else:
            without_it.switch = partial(disabled, *(CHECKS if guarantee == BOTH_CHECKS else (guarantee,)))
        yield guarantee, _Comparison(OPERATIONS_BY_NAME[name], with_it, without_it)


def _build_requests(environment: BenchEnvironment, server: InProcessServer, name: str) -> Iterator[bytes]:
    return encode_requests(OPERATIONS_BY_NAME[name].requests(server.client(), environment.scale), HOST)


def _add_idempotency_key(wire: bytes) -> bytes:
    head, _, body = wire.partition(b"\r\n\r\n")
    return b"%b\r\nIdempotency-Key: %b\r\n\r\n%b" % (head, uuid.uuid4().hex.encode(), body)


def _measure_timed(way: _Variant, name: str) -> dict[str, list[float]]:
    """Return the seconds that each request works within guarantees."""
    clocks = {guarantee: FunctionTimer(guarantee) for guarantee in TIMED}
    found: dict[str, list[float]] = {guarantee: [] for guarantee in TIMED}
    with contextlib.ExitStack() as stack:
        for clock in clocks.values():
            stack.enter_context(clock.measuring())
        for _ in range(ROUNDS[name] * TIMES):
            way.send(OPERATIONS_BY_NAME[name])
            for guarantee, clock in clocks.items():
                found[guarantee].append(clock.seconds)
                clock.seconds = 0.0
    return found


def _build_costs(
    pairs: Mapping[str, Mapping[str, _Comparison]], clocked: Mapping[str, Mapping[str, list[float]]]
) -> Costs:
    microseconds: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for name in OPERATIONS:
        for guarantee, seconds in clocked[name].items():
            if any(seconds):  # lists have no tag
                microseconds[guarantee][name] = Estimate.from_samples([1e6 * each for each in seconds])
        for guarantee, pair in pairs[name].items():
            microseconds[guarantee][name] = pair.cost()
    whole = {
        name: Estimate.from_samples(
            [
                1e6 * one
                for guarantee, pair in found.items()
                for one in (pair.totals_without if guarantee == WITH_KEY else pair.totals)
            ]
        )
        for name, found in pairs.items()
    }
    checks = sum(microseconds[check]["list_100"].median for check in CHECKS)
    return Costs(
        microseconds,
        whole,
        pairs["list_100"][BOTH_CHECKS].share(),
        checks / whole["list_100"].median,
        {name: len(found[POLICIES].totals) for name, found in pairs.items()},
    )
