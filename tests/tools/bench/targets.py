"""What the server is to reach, and whether a run says that it does. Knows figures and no servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from tests.tools.bench.feature_costs import Costs
from tests.tools.bench.measurements import DEPTHS, ServerResults
from tests.tools.bench.open_loop import Latencies
from tests.tools.bench.operations import OPERATIONS_BY_NAME
from tests.tools.bench.statistics import Estimate, paired_ratios, percentile
from tests.tools.bench.workers import Workers

MEGABYTE = 1_000_000
MAX_START_SECONDS = 2.0
MAX_WORKER_MEGABYTES = 150
MAX_MEMORY_GROWTH = 0.05
MAX_DEEP_PAGE_RATIO = 1.2
MAX_LARGE_TENANT_RATIO = 1.2
"""How many times as long as of a small tenant a page of a large one may take."""
MIN_WORKER_GAIN, MAX_WORKER_PRICE = 1.4, 1.1
"""Of two workers beside one: requests a second, and work for a request."""
MAX_VALIDATION_SHARE = 0.05
MIN_SPEEDUPS = {"fastapi_template": 1.5, "fastapi_async": 1.0}
"""How many times as many requests as a peer's ours is to answer at least."""


@dataclass(frozen=True)
class Verdict:
    """One target, what was measured, and whether that is good enough."""

    what: str
    target: str
    measured: str
    is_met: bool


@dataclass(frozen=True)
class Run:
    """What was measured, and of what could not be, why not."""

    results: Mapping[str, ServerResults]
    costs: Costs | None
    workers: Workers | None
    failed: Mapping[str, str]


def latency_percentiles(rounds: list[Latencies], part: float) -> list[float]:
    """Return for each round how long at most this part of its answers took."""
    return [1000 * percentile(each.seconds, part) for each in rounds]


def format_estimate(figure: Estimate, digits: int = 2) -> str:
    """Return a figure with its lowest and highest, as people read it."""
    return f"{figure.median:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def format_share(figure: Estimate) -> str:
    """Return a part of a whole in per cent, with its lowest and highest."""
    return f"{100 * figure.median:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def list_verdicts(run: Run) -> Iterator[Verdict]:
    """Give every target with what was measured."""
    yield from server_verdicts(run.results)
    if run.costs is not None:
        yield validation_verdict(run.costs)
    if run.workers is not None:
        yield from worker_verdicts(run.workers)
    for what, why in run.failed.items():
        yield Verdict(what, "to be measured", f"failed: {why}", is_met=False)


def server_verdicts(seen: Mapping[str, ServerResults]) -> Iterator[Verdict]:
    """Give the targets that ours reaches beside others, or alone."""
    ours = seen["ours"]
    for name, least in MIN_SPEEDUPS.items():
        if name in seen:
            yield from rate_verdicts(ours, seen[name], name, least)
    if "fastapi_template" in seen:
        yield from _latency_verdicts(ours, seen["fastapi_template"])
    yield from _deep_page_verdicts(ours)
    yield _max_verdict("start to the first answer, s", median(ours.starts), MAX_START_SECONDS)
    yield _max_verdict(
        "memory of the worker at rest, after the warm-up, MB",
        ours.idle_bytes / MEGABYTE,
        MAX_WORKER_MEGABYTES,
    )
    after = f"memory after {ours.requests:,} requests, MB"
    yield _max_verdict(after, ours.loaded_bytes / MEGABYTE, MAX_WORKER_MEGABYTES)
    growth = ours.loaded_bytes / ours.idle_bytes - 1
    yield _max_verdict("growth of memory since then, %", 100 * growth, 100 * MAX_MEMORY_GROWTH)
    one, hundred = ours.statements[1], ours.statements[100]
    yield Verdict(
        "statements of a list of 1 and of 100 rows", "equal", f"{one} and {hundred}", one == hundred
    )
    yield Verdict("requests that went wrong", "0", str(ours.errors), ours.errors == 0)


def validation_verdict(costs: Costs) -> Verdict:
    """Give whether checks are a small part of a list: by a clock or by switching off, whichever is more."""
    switched, clocked = costs.share_of_checks, costs.timed_share
    measured = f"{100 * clocked:.1f} % by a clock, {format_share(switched)} by switching off"
    what = "checking request and answer, share of the work of server and PostgreSQL for a list of 100"
    is_met = max(clocked, switched.median) <= MAX_VALIDATION_SHARE
    return Verdict(what, f"at most {MAX_VALIDATION_SHARE:.0%}", measured, is_met)


def worker_verdicts(workers: Workers) -> Iterator[Verdict]:
    """Give whether a second worker pays."""
    gain, price = workers.gain(), workers.price()
    what = "read one product, requests/s, 2 workers / 1"
    yield Verdict(
        what, f"at least {MIN_WORKER_GAIN:g}", format_estimate(gain), gain.median >= MIN_WORKER_GAIN
    )
    what = "read one product, CPU of the server for 1,000 requests, 2 workers / 1"
    yield Verdict(
        what, f"at most {MAX_WORKER_PRICE:g}", format_estimate(price), price.median <= MAX_WORKER_PRICE
    )


def _max_verdict(what: str, value: float, limit: float) -> Verdict:
    return Verdict(what, f"at most {limit:g}", f"{value:.2f}", value <= limit)


def rate_verdicts(ours: ServerResults, theirs: ServerResults, name: str, least: float) -> Iterator[Verdict]:
    """Give for each operation whether ours answers so many times as many requests as a peer."""
    for (operation, connections), loads in theirs.loads.items():
        found = paired_ratios(ours.rates(operation, connections), [each.rate for each in loads])
        what = f"{OPERATIONS_BY_NAME[operation].title}, {connections} connections, requests/s, ours / {name}"
        yield Verdict(what, f"at least {least:g}", format_estimate(found), found.median >= least)


def _latency_verdicts(ours: ServerResults, theirs: ServerResults) -> Iterator[Verdict]:
    for (operation, share), rounds in theirs.latencies.items():
        if share == max(share for _, share in theirs.latencies):
            mine = latency_percentiles(ours.latencies[operation, share], 0.99)
            found = paired_ratios(mine, latency_percentiles(rounds, 0.99))
            what = f"{OPERATIONS_BY_NAME[operation].title}, p99 at {share:.0%} load, ours / fastapi_template"
            yield Verdict(what, "at most 1", format_estimate(found), found.median <= 1)


def _deep_page_verdicts(ours: ServerResults) -> Iterator[Verdict]:
    for first, deep in DEPTHS:
        found = paired_ratios(
            *([median(seconds) for seconds in ours.sequential[name]] for name in (deep, first))
        )
        what = f"time of: {OPERATIONS_BY_NAME[deep].title} / {OPERATIONS_BY_NAME[first].title}"
        yield Verdict(
            what,
            f"at most {MAX_DEEP_PAGE_RATIO:g}",
            format_estimate(found),
            found.median <= MAX_DEEP_PAGE_RATIO,
        )
