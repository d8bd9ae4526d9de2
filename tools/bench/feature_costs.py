"""Measure the cost of each guarantee in microseconds of CPU time per request.

The server runs in this process, complete except for the socket. A guarantee that has its own functions is
timed there, by the CPU clock of the thread. A guarantee that also changes other code, such as statements, is
switched off and on between two requests, and the CPU time of this process and of its PostgreSQL backends is
compared. Each turn has four requests, and the variant that starts alternates from turn to turn, so that a
disturbance of the machine that lasts longer than a turn cancels out.
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

from studio.rate_limits.redis_store import RedisStore
from tools.bench.environment import SERVER_CORE, BenchEnvironment
from tools.bench.feature_toggles import FunctionTimer, disable_policies, disabled
from tools.bench.in_process import HOST, InProcessServer, run_in_process_server
from tools.bench.open_loop import encode_requests
from tools.bench.operations import OPERATIONS_BY_NAME, Operation, UnexpectedResponse
from tools.bench.processes import own_cpu_seconds, pinned_to_cores
from tools.bench.statistics import Estimate
from tools.servers.processes import run_redis

CHECKS = ("request_validation", "response_validation")
TIMED = (*CHECKS, "etags", "rate_limits")
POLICIES, AUDIT, WITH_KEY, BOTH_CHECKS = "policies", "audit", "with a key", "both checks"
LIMITS_IN_REDIS = "limits in Redis"
TITLES = {
    "request_validation": "validation of requests against the contract",
    "response_validation": "validation of responses against the contract",
    POLICIES: "row-level security in PostgreSQL",
    "etags": "entity tags",
    AUDIT: "an audit log event for each write",
    "rate_limits": "rate limits by account and organization",
    LIMITS_IN_REDIS: "counts of rate limits in Redis, for several processes, instead of in memory",
    WITH_KEY: "an idempotency key, if the request has one",
}
TOGGLED = {
    "read": (POLICIES, LIMITS_IN_REDIS),
    "list_100": (POLICIES, BOTH_CHECKS, LIMITS_IN_REDIS),
    "create": (POLICIES, AUDIT, LIMITS_IN_REDIS, WITH_KEY),
}
OPERATIONS = tuple(TOGGLED)
ROUNDS = {"read": 6, "list_100": 2, "create": 4}
"""Turns per operation, chosen so that all operations take about the same time."""
WARM_UP, TIMES = 40, 60
"""Warm-up requests of each variant, and timed requests per turn in `ROUNDS`."""


@dataclass
class _Variant:
    """One of the two variants of a comparison: with or without a guarantee."""

    server: InProcessServer
    requests: Iterator[bytes]
    switch: Callable[[], AbstractContextManager[object]] = nullcontext

    def send(self, operation: Operation) -> float:
        """Send one request and return the CPU seconds that it took."""
        request = next(self.requests)
        with self.switch():
            before = _cpu_seconds(self.server)
            response = self.server.send(request)
            used = _cpu_seconds(self.server) - before
        if not response.startswith(f"HTTP/1.1 {operation.status} ".encode()):
            raise UnexpectedResponse(f"{operation.name}: unexpected response {response[:300]!r}")
        return used


def _cpu_seconds(server: InProcessServer) -> float:
    return time.process_time() + sum(map(own_cpu_seconds, server.backends))


@dataclass
class _Comparison:
    """Two variants that differ in one guarantee, with the CPU seconds per request of each turn."""

    operation: Operation
    enabled: _Variant
    disabled: _Variant
    totals: list[float] = field(default_factory=list)
    totals_without: list[float] = field(default_factory=list)

    def run_round(self) -> None:
        """Send two requests to each variant, in the order A B B A; the first variant alternates."""
        variants = [self.enabled, self.disabled]
        if len(self.totals) % 2:
            variants.reverse()
        seconds = {id(variant): 0.0 for variant in variants}
        for variant in (*variants, *reversed(variants)):
            seconds[id(variant)] += variant.send(self.operation) / 2
        self.totals.append(seconds[id(self.enabled)])
        self.totals_without.append(seconds[id(self.disabled)])

    def warm_up(self) -> None:
        """Send requests until statements are prepared and caches are full."""
        for variant in (self.enabled, self.disabled):
            for _ in range(WARM_UP):
                variant.send(self.operation)

    def cost(self) -> Estimate:
        """Return the cost of the guarantee in microseconds per request."""
        return Estimate.from_samples(
            [1e6 * (one - other) for one, other in zip(self.totals, self.totals_without, strict=True)]
        )

    def ratio(self) -> Estimate:
        """Return the ratio of the totals, with the guarantee to without it."""
        return Estimate.from_samples(
            [one / other for one, other in zip(self.totals, self.totals_without, strict=True)]
        )

    def share(self) -> Estimate:
        """Return the cost of the guarantee as a share of the total."""
        return Estimate.from_samples(
            [(one - other) / one for one, other in zip(self.totals, self.totals_without, strict=True)]
        )


@dataclass(frozen=True)
class Costs:
    """Microseconds by guarantee and operation, and the share of both validations in a list of 100."""

    microseconds: Mapping[str, Mapping[str, Estimate]]
    totals: Mapping[str, Estimate]
    share_of_checks: Estimate
    timed_share: float
    """The same share, timed in the functions of the validations."""
    redis_ratio: Estimate
    """The CPU time of a read with limits in Redis, divided by that with limits in memory."""
    rounds: Mapping[str, int]


def measure_costs(environment: BenchEnvironment, database: str, seconds: float) -> Costs:
    """Time the guarantees with their own functions, then compare the others in turns for `seconds`."""
    environment.copy("unprotected")
    disable_policies(environment.url("unprotected"))
    with (
        run_redis() as redis,
        pinned_to_cores(SERVER_CORE),
        run_in_process_server(environment.folder, environment.url(database)) as server,
        run_in_process_server(environment.folder, environment.url("unprotected")) as another,
    ):
        counts = RedisStore(redis.url)
        pairs = {
            name: dict(_build_comparisons(environment, server, another, counts, name)) for name in OPERATIONS
        }
        every = [pair for found in pairs.values() for pair in found.values()]
        for pair in every:
            pair.warm_up()
        for each in (server, another):
            each.find_backends()
        timed = {
            name: _measure_timed(_Variant(server, _build_requests(environment, server, name)), name)
            for name in OPERATIONS
        }
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for pair in every:
                for _ in range(ROUNDS[pair.operation.name]):
                    pair.run_round()
    return _build_costs(pairs, timed)


def _build_comparisons(
    environment: BenchEnvironment,
    server: InProcessServer,
    another: InProcessServer,
    counts: RedisStore,
    name: str,
) -> Iterator[tuple[str, _Comparison]]:
    for guarantee in TOGGLED[name]:
        enabled_variant, disabled_variant = (
            _Variant(server, _build_requests(environment, server, name)) for _ in range(2)
        )
        if guarantee == WITH_KEY:
            enabled_variant.requests = map(_add_idempotency_key, enabled_variant.requests)
        elif guarantee == POLICIES:
            # This server uses a copy of the rows without policies.
            disabled_variant = _Variant(
                another, _build_requests(environment, another, name), partial(disabled, POLICIES)
            )
        elif guarantee == LIMITS_IN_REDIS:
            enabled_variant.switch = partial(server.limits_stored_in, counts)
        else:
            features = CHECKS if guarantee == BOTH_CHECKS else (guarantee,)
            disabled_variant.switch = partial(disabled, *features)
        yield guarantee, _Comparison(OPERATIONS_BY_NAME[name], enabled_variant, disabled_variant)


def _build_requests(environment: BenchEnvironment, server: InProcessServer, name: str) -> Iterator[bytes]:
    return encode_requests(OPERATIONS_BY_NAME[name].requests(server.client(), environment.scale), HOST)


def _add_idempotency_key(request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    return b"%b\r\nIdempotency-Key: %b\r\n\r\n%b" % (head, uuid.uuid4().hex.encode(), body)


def _measure_timed(variant: _Variant, name: str) -> dict[str, list[float]]:
    """Return the CPU seconds that each request spends in the functions of each guarantee."""
    timers = {guarantee: FunctionTimer(guarantee) for guarantee in TIMED}
    seconds: dict[str, list[float]] = {guarantee: [] for guarantee in TIMED}
    with contextlib.ExitStack() as stack:
        for timer in timers.values():
            stack.enter_context(timer.measuring())
        for _ in range(ROUNDS[name] * TIMES):
            variant.send(OPERATIONS_BY_NAME[name])
            for guarantee, timer in timers.items():
                seconds[guarantee].append(timer.seconds)
                timer.seconds = 0.0
    return seconds


def _build_costs(
    pairs: Mapping[str, Mapping[str, _Comparison]], timed: Mapping[str, Mapping[str, list[float]]]
) -> Costs:
    microseconds: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for name in OPERATIONS:
        for guarantee, seconds in timed[name].items():
            if any(seconds):  # lists have no ETag
                microseconds[guarantee][name] = Estimate.from_samples([1e6 * each for each in seconds])
        for guarantee, pair in pairs[name].items():
            microseconds[guarantee][name] = pair.cost()
    totals = {
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
        totals,
        pairs["list_100"][BOTH_CHECKS].share(),
        checks / totals["list_100"].median,
        pairs["read"][LIMITS_IN_REDIS].ratio(),
        {name: len(found[POLICIES].totals) for name, found in pairs.items()},
    )
