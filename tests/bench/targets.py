"""What the server is to reach, and whether a run says that it does. Knows figures and no servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from statistics import median

from tests.bench.figures import Figure, percentile, ratios
from tests.bench.guarantees import Costs
from tests.bench.measuring import DEPTHS, Seen
from tests.bench.open_loop import Latencies
from tests.bench.operations import NAMED

MEGABYTE = 1_000_000
LONGEST_START_SECONDS = 2.0
LARGEST_WORKER_MEGABYTES = 150
LARGEST_GROWTH = 0.05
DEEPEST_PAGE = 1.2
LARGEST_SHARE = 5.0
SLOWEST = {"fastapi_template": 1.5, "fastapi_async": 1.0}
"""How many times as many requests as a peer's ours is to answer at least."""


@dataclass(frozen=True)
class Verdict:
    """One target, what was measured, and whether that is good enough."""

    what: str
    target: str
    measured: str
    is_met: bool


def p99_milliseconds(rounds: list[Latencies]) -> list[float]:
    """Return the 99th percentile of each round."""
    return [1000 * percentile(each.seconds, 0.99) for each in rounds]


def spread(figure: Figure, digits: int = 2) -> str:
    """Return a figure with its lowest and highest, as people read it."""
    return f"{figure.median:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def verdicts(seen: Mapping[str, Seen], costs: Costs) -> Iterator[Verdict]:
    """Give every target with what was measured."""
    ours = seen["ours"]
    for name, least in SLOWEST.items():
        if name in seen:
            yield from of_rates(ours, seen[name], name, least)
    if "fastapi_template" in seen:
        yield from _tails(ours, seen["fastapi_template"])
    yield from _depths(ours)
    share = Figure(*(100 * part for part in astuple(costs.validation_share)))
    what = "checking request and answer of a list of 100 rows, % of its time"
    yield Verdict(what, f"at most {LARGEST_SHARE:g}", spread(share, 1), share.median <= LARGEST_SHARE)
    yield _at_most("start to the first answer, s", median(ours.starts), LONGEST_START_SECONDS)
    yield _at_most("memory of the idle worker, MB", ours.idle_bytes / MEGABYTE, LARGEST_WORKER_MEGABYTES)
    after = f"memory after {ours.requests:,} requests, MB"
    yield _at_most(after, ours.later_bytes / MEGABYTE, LARGEST_WORKER_MEGABYTES)
    growth = ours.later_bytes / ours.idle_bytes - 1
    yield _at_most("growth of memory meanwhile, %", 100 * growth, 100 * LARGEST_GROWTH)
    one, hundred = ours.statements[1], ours.statements[100]
    yield Verdict(
        "statements of a list of 1 and of 100 rows", "equal", f"{one} and {hundred}", one == hundred
    )
    yield Verdict("requests that went wrong", "0", str(ours.errors), ours.errors == 0)


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
            mine = p99_milliseconds(ours.latencies[operation, share])
            found = ratios(mine, p99_milliseconds(rounds))
            what = f"{NAMED[operation].title}, p99 at {share:.0%} load, ours / fastapi_template"
            yield Verdict(what, "at most 1", spread(found), found.median <= 1)


def _depths(ours: Seen) -> Iterator[Verdict]:
    for first, deep in DEPTHS:
        found = ratios(*([median(seconds) for seconds in ours.alone[name]] for name in (deep, first)))
        what = f"time of: {NAMED[deep].title} / {NAMED[first].title}"
        yield Verdict(what, f"at most {DEEPEST_PAGE:g}", spread(found), found.median <= DEEPEST_PAGE)
