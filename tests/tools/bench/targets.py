"""The targets of the benchmark, and whether a run meets them. Knows figures and no servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from tests.tools.bench.feature_costs import Costs
from tests.tools.bench.measurements import DEPTHS, ServerResults
from tests.tools.bench.open_loop import Latencies
from tests.tools.bench.operations import OPERATIONS_BY_NAME
from tests.tools.bench.shop import ShopResults
from tests.tools.bench.statistics import Estimate, paired_ratios, percentile
from tests.tools.bench.workers import Workers

MEGABYTE = 1_000_000
MAX_START_SECONDS = 2.0
MAX_WORKER_MEGABYTES = 150
MAX_MEMORY_GROWTH = 0.05
MAX_DEEP_PAGE_RATIO = 1.2
MAX_LARGE_TENANT_RATIO = 1.2
"""The highest ratio of a page's latency for a large tenant to that for a small one."""
MIN_WORKER_GAIN, MAX_WORKER_PRICE = 1.4, 1.1
"""Ratios of two workers to one: requests per second, and CPU time per request."""
MAX_VALIDATION_SHARE = 0.05
MIN_SPEEDUPS = {"fastapi_template": 1.5, "fastapi_async": 1.0}
"""The lowest ratio of our request rate to that of each peer."""


@dataclass(frozen=True)
class Verdict:
    """One target, the measured value, and whether it meets the target."""

    what: str
    target: str
    measured: str
    is_met: bool


@dataclass(frozen=True)
class Run:
    """The results of a run, and the errors of the measurements that failed."""

    results: Mapping[str, ServerResults]
    costs: Costs | None
    workers: Workers | None
    failed: Mapping[str, str]
    shop: ShopResults | None = None


def latency_percentiles(rounds: list[Latencies], part: float) -> list[float]:
    """Return the latency percentile (`part`, from 0 to 1) of each round in milliseconds."""
    return [1000 * percentile(each.seconds, part) for each in rounds]


def format_estimate(figure: Estimate, digits: int = 2) -> str:
    """Return a figure with its bounds as text."""
    return f"{figure.median:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def format_share(figure: Estimate) -> str:
    """Return a share in percent with its bounds as text."""
    return f"{100 * figure.median:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def list_verdicts(run: Run) -> Iterator[Verdict]:
    """Yield the verdict on every target."""
    yield from server_verdicts(run.results)
    if run.costs is not None:
        yield validation_verdict(run.costs)
    if run.workers is not None:
        yield from worker_verdicts(run.workers)
    for what, why in run.failed.items():
        yield Verdict(what, "to be measured", f"failed: {why}", is_met=False)


def server_verdicts(results: Mapping[str, ServerResults]) -> Iterator[Verdict]:
    """Yield the verdicts on our server, in comparison with its peers and alone."""
    ours = results["ours"]
    for name, least in MIN_SPEEDUPS.items():
        if name in results:
            yield from rate_verdicts(ours, results[name], name, least)
    if "fastapi_template" in results:
        yield from _latency_verdicts(ours, results["fastapi_template"])
    yield from _deep_page_verdicts(ours)
    yield _max_verdict("start to the first response, s", median(ours.starts), MAX_START_SECONDS)
    yield _max_verdict(
        "memory of the idle worker after the warm-up, MB",
        ours.idle_bytes / MEGABYTE,
        MAX_WORKER_MEGABYTES,
    )
    title = f"memory after {ours.requests:,} requests, MB"
    yield _max_verdict(title, ours.loaded_bytes / MEGABYTE, MAX_WORKER_MEGABYTES)
    growth = ours.loaded_bytes / ours.idle_bytes - 1
    yield _max_verdict("growth of memory after the warm-up, %", 100 * growth, 100 * MAX_MEMORY_GROWTH)
    one, hundred = ours.statements[1], ours.statements[100]
    yield Verdict(
        "statements of a list of 1 and of 100 rows", "equal", f"{one} and {hundred}", one == hundred
    )
    yield Verdict("failed requests", "0", str(ours.errors), ours.errors == 0)


def validation_verdict(costs: Costs) -> Verdict:
    """Return the verdict on the share of both validations: timed or switched off, whichever is higher."""
    switched, timed = costs.share_of_checks, costs.timed_share
    measured = f"{100 * timed:.1f} % timed, {format_share(switched)} switched off"
    what = "validation of request and response, share of the CPU time of a list of 100"
    is_met = max(timed, switched.median) <= MAX_VALIDATION_SHARE
    return Verdict(what, f"at most {MAX_VALIDATION_SHARE:.0%}", measured, is_met)


def worker_verdicts(workers: Workers) -> Iterator[Verdict]:
    """Yield the verdicts on the gain and the cost of a second worker."""
    gain, price = workers.gain(), workers.price()
    what = "read one product, requests/s, 2 workers / 1"
    yield Verdict(
        what, f"at least {MIN_WORKER_GAIN:g}", format_estimate(gain), gain.median >= MIN_WORKER_GAIN
    )
    what = "read one product, CPU time per request, 2 workers / 1"
    yield Verdict(
        what, f"at most {MAX_WORKER_PRICE:g}", format_estimate(price), price.median <= MAX_WORKER_PRICE
    )


def _max_verdict(what: str, value: float, limit: float) -> Verdict:
    return Verdict(what, f"at most {limit:g}", f"{value:.2f}", value <= limit)


def rate_verdicts(ours: ServerResults, theirs: ServerResults, name: str, least: float) -> Iterator[Verdict]:
    """Yield for each operation the verdict on the ratio of our request rate to that of a peer."""
    for (operation, connections), loads in theirs.loads.items():
        ratio = paired_ratios(ours.rates(operation, connections), [each.rate for each in loads])
        title = OPERATIONS_BY_NAME[operation].title
        what = f"{title}, {connections} connections, requests/s, Sartiq / {name}"
        yield Verdict(what, f"at least {least:g}", format_estimate(ratio), ratio.median >= least)


def _latency_verdicts(ours: ServerResults, theirs: ServerResults) -> Iterator[Verdict]:
    for (operation, share), rounds in theirs.latencies.items():
        if share == max(share for _, share in theirs.latencies):
            our_percentiles = latency_percentiles(ours.latencies[operation, share], 0.99)
            ratio = paired_ratios(our_percentiles, latency_percentiles(rounds, 0.99))
            title = OPERATIONS_BY_NAME[operation].title
            what = f"{title}, p99 at {share:.0%} load, Sartiq / fastapi_template"
            yield Verdict(what, "at most 1", format_estimate(ratio), ratio.median <= 1)


def _deep_page_verdicts(ours: ServerResults) -> Iterator[Verdict]:
    for first, deep in DEPTHS:
        ratio = paired_ratios(
            *([median(seconds) for seconds in ours.sequential[name]] for name in (deep, first))
        )
        what = f"latency of {OPERATIONS_BY_NAME[deep].title} / {OPERATIONS_BY_NAME[first].title}"
        yield Verdict(
            what,
            f"at most {MAX_DEEP_PAGE_RATIO:g}",
            format_estimate(ratio),
            ratio.median <= MAX_DEEP_PAGE_RATIO,
        )
