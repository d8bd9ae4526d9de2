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

from tests.bench.figures import Figure
from tests.bench.inside import HOST, Inside, inside
from tests.bench.open_loop import wires
from tests.bench.operations import NAMED, Operation, Unexpected
from tests.bench.processes import on_cores, seconds_of_one
from tests.bench.serving import SERVER_CORE, Stage
from tests.bench.without import Clock, left_away, take_policies_away

CHECKS = ("request_validation", "response_validation")
CLOCKED = (*CHECKS, "etags", "rate_limits")
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
SWITCHED = {
    "read": (POLICIES,),
    "list_100": (POLICIES, BOTH_CHECKS),
    "create": (POLICIES, AUDIT, WITH_KEY),
}
ASKED = tuple(SWITCHED)
TURNS = {"read": 6, "list_100": 2, "create": 4}
"""How many turns of each take about as long as those of the others."""
WARM_UP, TIMES = 40, 60
"""Requests of each way before it counts, and for each turn in the list above with clocks running."""


@dataclass
class _Way:
    """One of two ways to have a request answered."""

    server: Inside
    requests: Iterator[bytes]
    switch: Callable[[], AbstractContextManager[object]] = nullcontext

    def ask(self, operation: Operation) -> float:
        """Ask once, and return the seconds of work."""
        wire = next(self.requests)
        with self.switch():
            before = _clocks(self.server)
            told = self.server.ask(wire)
            worked = _clocks(self.server) - before
        if not told.startswith(f"HTTP/1.1 {operation.status} ".encode()):
            raise Unexpected(f"{operation.name} was answered {told[:300]!r}")
        return worked


def _clocks(server: Inside) -> float:
    return time.process_time() + sum(map(seconds_of_one, server.backends))


@dataclass
class _Pair:
    """Two ways that differ by one guarantee, and the seconds that each worked for a request, turn by turn."""

    operation: Operation
    with_it: _Way
    without_it: _Way
    whole: list[float] = field(default_factory=list)
    less: list[float] = field(default_factory=list)

    def take_turn(self) -> None:
        """Ask each way twice, the one that began last time between the other's requests."""
        ways = [self.with_it, self.without_it]
        if len(self.whole) % 2:
            ways.reverse()
        seconds = {id(way): 0.0 for way in ways}
        for way in (*ways, *reversed(ways)):
            seconds[id(way)] += way.ask(self.operation) / 2
        self.whole.append(seconds[id(self.with_it)])
        self.less.append(seconds[id(self.without_it)])

    def warm_up(self) -> None:
        """Ask until statements are prepared and caches full."""
        for way in (self.with_it, self.without_it):
            for _ in range(WARM_UP):
                way.ask(self.operation)

    def cost(self) -> Figure:
        """Microseconds that the guarantee takes for a request."""
        return Figure.sure([1e6 * (one - other) for one, other in zip(self.whole, self.less, strict=True)])

    def share(self) -> Figure:
        """Which part of the work the guarantee is."""
        return Figure.sure([(one - other) / one for one, other in zip(self.whole, self.less, strict=True)])


@dataclass(frozen=True)
class Costs:
    """Microseconds of work by guarantee and operation, and the share of both checks in a list of 100."""

    microseconds: Mapping[str, Mapping[str, Figure]]
    whole: Mapping[str, Figure]
    share_of_checks: Figure
    clocked_share: float
    """The same by their clocks."""
    turns: Mapping[str, int]


def measure_costs(stage: Stage, database: str, seconds: float) -> Costs:
    """Clock, and then let ours answer with and without the other guarantees in turns, for so long."""
    stage.copy("unprotected")
    take_policies_away(stage.url("unprotected"))
    with (
        on_cores(SERVER_CORE),
        inside(stage.folder, stage.url(database)) as server,
        inside(stage.folder, stage.url("unprotected")) as another,
    ):
        pairs = {name: dict(_pairs(stage, server, another, name)) for name in ASKED}
        every = [pair for found in pairs.values() for pair in found.values()]
        for pair in every:
            pair.warm_up()
        clocked = {name: _clocked(_Way(server, _requests(stage, server, name)), name) for name in ASKED}
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for pair in every:
                for _ in range(TURNS[pair.operation.name]):
                    pair.take_turn()
    return _costs(pairs, clocked)


def _pairs(stage: Stage, server: Inside, another: Inside, name: str) -> Iterator[tuple[str, _Pair]]:
    for guarantee in SWITCHED[name]:
        with_it, without_it = (_Way(server, _requests(stage, server, name)) for _ in range(2))
        if guarantee == WITH_KEY:
            with_it.requests = map(_with_a_key, with_it.requests)
        elif guarantee == POLICIES:
            # On a copy of the rows without policies.
            without_it = _Way(another, _requests(stage, another, name), partial(left_away, POLICIES))
        else:
            without_it.switch = partial(left_away, *(CHECKS if guarantee == BOTH_CHECKS else (guarantee,)))
        yield guarantee, _Pair(NAMED[name], with_it, without_it)


def _requests(stage: Stage, server: Inside, name: str) -> Iterator[bytes]:
    return wires(NAMED[name].requests(server.client(), stage.scale), HOST)


def _with_a_key(wire: bytes) -> bytes:
    head, _, body = wire.partition(b"\r\n\r\n")
    return b"%b\r\nIdempotency-Key: %b\r\n\r\n%b" % (head, uuid.uuid4().hex.encode(), body)


def _clocked(way: _Way, name: str) -> dict[str, list[float]]:
    """Return the seconds that each request works within guarantees."""
    clocks = {guarantee: Clock(guarantee) for guarantee in CLOCKED}
    found: dict[str, list[float]] = {guarantee: [] for guarantee in CLOCKED}
    with contextlib.ExitStack() as stack:
        for clock in clocks.values():
            stack.enter_context(clock.running())
        for _ in range(TURNS[name] * TIMES):
            way.ask(NAMED[name])
            for guarantee, clock in clocks.items():
                found[guarantee].append(clock.seconds)
                clock.seconds = 0.0
    return found


def _costs(
    pairs: Mapping[str, Mapping[str, _Pair]], clocked: Mapping[str, Mapping[str, list[float]]]
) -> Costs:
    microseconds: dict[str, dict[str, Figure]] = defaultdict(dict)
    for name in ASKED:
        for guarantee, seconds in clocked[name].items():
            if any(seconds):  # lists have no tag
                microseconds[guarantee][name] = Figure.sure([1e6 * each for each in seconds])
        for guarantee, pair in pairs[name].items():
            microseconds[guarantee][name] = pair.cost()
    whole = {
        name: Figure.sure(
            [
                1e6 * one
                for guarantee, pair in found.items()
                for one in (pair.less if guarantee == WITH_KEY else pair.whole)
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
        {name: len(found[POLICIES].whole) for name, found in pairs.items()},
    )
