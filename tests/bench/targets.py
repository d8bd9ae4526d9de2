"""What the server is to reach, and whether a run says that it does. Knows figures and no servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from tests.bench.figures import Figure, percentile, ratios
from tests.bench.guarantees import Costs
from tests.bench.measuring import DEPTHS, Seen
from tests.bench.open_loop import Latencies
from tests.bench.operations import NAMED
from tests.bench.workers import Workers

MEGABYTE = 1_000_000
LONGEST_START_SECONDS = 2.0
LARGEST_WORKER_MEGABYTES = 150
LARGEST_GROWTH = 0.05
DEEPEST_PAGE = 1.2
LARGEST_TENANT = 1.2
"""How many times as long as of a small tenant a page of a large one may take."""
LEAST_GAIN, HIGHEST_PRICE = 1.4, 1.1
"""Of two workers beside one: requests a second, and work for a request."""
LARGEST_SHARE = 0.05
SLOWEST = {"fastapi_template": 1.5, "fastapi_async": 1.0}
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

    seen: Mapping[str, Seen]
    costs: Costs | None
    workers: Workers | None
    failed: Mapping[str, str]


def milliseconds(rounds: list[Latencies], part: float) -> list[float]:
    """Return for each round how long at most this part of its answers took."""
    return [1000 * percentile(each.seconds, part) for each in rounds]


def spread(figure: Figure, digits: int = 2) -> str:
    """Return a figure with its lowest and highest, as people read it."""
    return f"{figure.median:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def shares(figure: Figure) -> str:
    """Return a part of a whole in per cent, with its lowest and highest."""
    return f"{100 * figure.median:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def verdicts(run: Run) -> Iterator[Verdict]:
    """Give every target with what was measured."""
    yield from of_contenders(run.seen)
    if run.costs is not None:
        yield of_checks(run.costs)
    if run.workers is not None:
        yield from of_workers(run.workers)
    for what, why in run.failed.items():
        yield Verdict(what, "to be measured", f"failed: {why}", is_met=False)


def of_contenders(seen: Mapping[str, Seen]) -> Iterator[Verdict]:
    """Give the targets that ours reaches beside others, or alone."""
    ours = seen["ours"]
    for name, least in SLOWEST.items():
        if name in seen:
            yield from of_rates(ours, seen[name], name, least)
    if "fastapi_template" in seen:
        yield from _tails(ours, seen["fastapi_template"])
    yield from _depths(ours)
    yield _at_most("start to the first answer, s", median(ours.starts), LONGEST_START_SECONDS)
    yield _at_most(
        "memory of the worker at rest, after the warm-up, MB",
        ours.idle_bytes / MEGABYTE,
        LARGEST_WORKER_MEGABYTES,
    )
    after = f"memory after {ours.requests:,} requests, MB"
    yield _at_most(after, ours.later_bytes / MEGABYTE, LARGEST_WORKER_MEGABYTES)
    growth = ours.later_bytes / ours.idle_bytes - 1
    yield _at_most("growth of memory since then, %", 100 * growth, 100 * LARGEST_GROWTH)
    one, hundred = ours.statements[1], ours.statements[100]
    yield Verdict(
        "statements of a list of 1 and of 100 rows", "equal", f"{one} and {hundred}", one == hundred
    )
    yield Verdict("requests that went wrong", "0", str(ours.errors), ours.errors == 0)


def of_checks(costs: Costs) -> Verdict:
    """Give whether checks are a small part of a list: by a clock or by switching off, whichever is more."""
    switched, clocked = costs.share_of_checks, costs.clocked_share
    measured = f"{100 * clocked:.1f} % by a clock, {shares(switched)} by switching off"
    what = "checking request and answer, share of the work of server and PostgreSQL for a list of 100"
    is_met = max(clocked, switched.median) <= LARGEST_SHARE
    return Verdict(what, f"at most {LARGEST_SHARE:.0%}", measured, is_met)


def of_workers(workers: Workers) -> Iterator[Verdict]:
    """Give whether a second worker pays."""
    gain, price = workers.gain(), workers.price()
    what = "read one product, requests/s, 2 workers / 1"
    yield Verdict(what, f"at least {LEAST_GAIN:g}", spread(gain), gain.median >= LEAST_GAIN)
    what = "read one product, CPU of the server for 1,000 requests, 2 workers / 1"
    yield Verdict(what, f"at most {HIGHEST_PRICE:g}", spread(price), price.median <= HIGHEST_PRICE)


def _at_most(what: str, value: float, limit: float) -> Verdict:
    return Verdict(what, f"at most {limit:g}", f"{value:.2f}", value <= limit)


def of_rates(ours: Seen, theirs: Seen, name: str, least: float) -> Iterator[Verdict]:
    """Give for each operation whether ours answers so many times as many requests as a peer."""
    for (operation, connections), loads in theirs.loads.items():
        found = ratios(ours.rates(operation, connections), [each.rate for each in loads])
        what = f"{NAMED[operation].title}, {connections} connections, requests/s, ours / {name}"
        yield Verdict(what, f"at least {least:g}", spread(found), found.median >= least)


def _tails(ours: Seen, theirs: Seen) -> Iterator[Verdict]:
    for (operation, share), rounds in theirs.latencies.items():
        if share == max(share for _, share in theirs.latencies):
            mine = milliseconds(ours.latencies[operation, share], 0.99)
            found = ratios(mine, milliseconds(rounds, 0.99))
            what = f"{NAMED[operation].title}, p99 at {share:.0%} load, ours / fastapi_template"
            yield Verdict(what, "at most 1", spread(found), found.median <= 1)


def _depths(ours: Seen) -> Iterator[Verdict]:
    for first, deep in DEPTHS:
        found = ratios(*([median(seconds) for seconds in ours.alone[name]] for name in (deep, first)))
        what = f"time of: {NAMED[deep].title} / {NAMED[first].title}"
        yield Verdict(what, f"at most {DEEPEST_PAGE:g}", spread(found), found.median <= DEEPEST_PAGE)
