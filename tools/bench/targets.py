"""The targets of the benchmark, and whether a run meets them. Knows figures and no servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median

from tools.bench.feature_costs import AUDIT, WITH_KEY, Costs
from tools.bench.measurements import DEPTHS, PAGES, ServerResults
from tools.bench.operations import OPERATIONS_BY_NAME
from tools.bench.servers import SERVERS, Kind, ServerSpec
from tools.bench.shop import ShopResults
from tools.bench.statistics import Estimate, paired_ratios
from tools.bench.workers import Workers

MEGABYTE = 1_000_000
MAX_LARGE_TENANT_RATIO = 1.2
"""The highest ratio of a page's latency for a large tenant to that for a small one (`make bench-lists`)."""
TAIL_SHARE = 0.8
LISTS = ("list_1", "list_3", "list_20", "list_100", "skip_100", "cursor_100")
READS = ("read", "not_modified", *LISTS)


@dataclass(frozen=True)
class Target:
    """A limit for one figure."""

    title: str
    limit: float
    is_minimum: bool = False
    digits: int = 2
    is_rule: bool = False
    """Whether a miss is a defect of the server, whatever the machine and the peers."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """The limits of operations that have one of their own."""

    def of_operation(self, operation: str) -> Target:
        """Return the target with the limit of an operation."""
        return replace(self, limit=self.limits.get(operation, self.limit))

    def is_met(self, value: float) -> bool:
        """Return whether a value meets the target."""
        return value >= self.limit if self.is_minimum else value <= self.limit

    def format_limit(self) -> str:
        """Return the limit as text."""
        return f"{'at least' if self.is_minimum else 'at most'} {self.limit:g}"


# A figure below its target stays below it in the tables. A target is not lowered to what was reached.
TARGETS = {
    "fastapi_template": Target(
        "requests/s, Sartiq / FastAPI template", 2.0, is_minimum=True, limits=dict.fromkeys(READS, 3.0)
    ),
    "fastapi_async": Target("requests/s, Sartiq / FastAPI async", 1.0, is_minimum=True),
    "litestar": Target(
        "requests/s, Sartiq / Litestar",
        0.5,
        is_minimum=True,
        limits={**dict.fromkeys(LISTS, 0.8), "read": 0.85, "not_modified": 0.6},
    ),
    "flask_core": Target(
        "requests/s, Sartiq / Flask by hand", 0.9, is_minimum=True, limits=dict.fromkeys(READS, 1.2)
    ),
    "fastify": Target("requests/s, Sartiq / Fastify, reads and lists", 0.6, is_minimum=True),
    "tail": Target("p99 at 80 % load, Sartiq / best peer", 1.5),
    "redis": Target("CPU time of a read, limits in Redis / in memory", 1.2),
    "validation": Target("validation both ways, % of list 100", 8, digits=1),
    "key": Target("an Idempotency-Key, % of the CPU time of a create", 15, digits=1),
    "audit": Target("an audit event, % of the CPU time of a create", 8, digits=1),
    "deep": Target("deep cursor / first page", 1.1),
    "pages": Target("PostgreSQL's CPU time, a page / the next larger one", 1.0),
    "start": Target("CPU time of the server until the first response, s", 1.0),
    "memory": Target("memory of the worker, MB", 150, digits=0),
    "further": Target("memory of a further worker, MB", 60, digits=0),
    # 1.9 in three rounds after the first one; the allocator keeps what batches used.
    "growth": Target("growth of the worker's memory, %", 3, digits=1),
    "worker_gain": Target("requests/s, 2 workers / 1", 1.4, is_minimum=True),
    "worker_price": Target("CPU time per request, 2 workers / 1", 1.1),
    "balanced": Target("requests/s, 4 processes behind a balancer / 1", 1.3, is_minimum=True),
    "statements": Target("statements of a list of 100 rows / of 1 row", 1.0, is_rule=True),
    "errors": Target("failed requests and measurements", 0, digits=0, is_rule=True),
}
"""All targets. A missed one fails the run only if it is a rule."""
COMPARED = {"fastify": READS}
"""The operations that a peer's target is about, if not all that it has."""
EXCUSED = {"flask_core": ("invalid",)}
"""Operations that no target is about: a server without guarantees does nothing that could be compared."""


@dataclass(frozen=True)
class Verdict:
    """One figure beside its target."""

    target: Target
    what: str
    measured: str
    value: float

    @property
    def is_met(self) -> bool:
        """Return whether the figure meets the target."""
        return self.target.is_met(self.value)

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Return the cells of a table: figure, target, measured value, whether it is met."""
        return (self.what, self.target.format_limit(), self.measured, "yes" if self.is_met else "**no**")


def summarize(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, str, str, str]]:
    """Yield for each target the cells of a table: title, limits, range of the figures, met or not."""
    for target in TARGETS.values():
        of_target = [each for each in verdicts if each.target.title == target.title]
        found = [each.value for each in of_target]
        if not found:
            continue
        low, high = (f"{value:.{target.digits}f}" for value in (min(found), max(found)))
        are_met = [each.is_met for each in of_target]
        met = "yes" if all(are_met) else "**no**"
        if len(found) > 1 and not all(are_met):
            met += f", {sum(are_met)} of {len(found)} met"
        yield (target.title, _format_limits(of_target), low if low == high else f"{low} to {high}", met)


def _format_limits(verdicts: Sequence[Verdict]) -> str:
    limits = {each.target.limit: each.target.format_limit() for each in verdicts}
    text = limits[min(limits)]
    return text if len(limits) == 1 else f"{text} to {max(limits):g}"


@dataclass(frozen=True)
class Run:
    """The results of a run, and the errors of the measurements that failed."""

    results: Mapping[str, ServerResults]
    costs: Costs | None
    workers: Workers | None
    failed: Mapping[str, str]
    shop: ShopResults | None = None


def format_estimate(figure: Estimate, digits: int = 2) -> str:
    """Return a figure with its bounds as text."""
    return f"{figure.median:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def format_share(figure: Estimate) -> str:
    """Return a share in percent with its bounds as text."""
    return f"{100 * figure.median:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def list_verdicts(run: Run, specs: Sequence[ServerSpec] = SERVERS) -> Iterator[Verdict]:
    """Yield the verdict on every target."""
    yield from server_verdicts(run.results, specs)
    if run.costs is not None:
        yield from cost_verdicts(run.costs)
    if run.workers is not None:
        yield from worker_verdicts(run.workers)
    for what, why in run.failed.items():
        yield Verdict(TARGETS["errors"], f"measurement: {what}", f"failed: {why}", 1)


def server_verdicts(
    results: Mapping[str, ServerResults], specs: Sequence[ServerSpec] = SERVERS
) -> Iterator[Verdict]:
    """Yield the verdicts on our server, in comparison with its peers and alone."""
    ours = results["ours"]
    for spec in specs:
        if spec.name in TARGETS and spec.name in results:
            yield from rate_verdicts(ours, results[spec.name], spec.name)
    peers = {
        each.title: results[each.name] for each in specs if each.kind is Kind.PEER and each.name in results
    }
    yield from tail_verdicts(ours, peers)
    yield from _deep_page_verdicts(ours)
    yield from _page_size_verdicts(ours)
    start = median(ours.starts)
    yield Verdict(TARGETS["start"], TARGETS["start"].title, f"{start:.2f}", start)
    for what, size in (
        ("memory of the idle worker after the warm-up, MB", ours.idle_bytes),
        ("memory after the first round, MB", ours.warm_bytes),
        (f"memory after {ours.requests:,} requests, MB", ours.loaded_bytes),
    ):
        yield Verdict(TARGETS["memory"], what, f"{size / MEGABYTE:.0f}", size / MEGABYTE)
    growth = 100 * (ours.loaded_bytes / ours.warm_bytes - 1)
    yield Verdict(TARGETS["growth"], "growth of memory after the first round, %", f"{growth:.1f}", growth)
    one, hundred = ours.statements[1], ours.statements[100]
    what = "statements of a list of 1 and of 100 rows"
    yield Verdict(TARGETS["statements"], what, f"{one} and {hundred}", hundred / one)
    yield Verdict(TARGETS["errors"], "failed requests", str(ours.errors), ours.errors)


def cost_verdicts(costs: Costs) -> Iterator[Verdict]:
    """Yield the verdicts on the cost of guarantees.

    The share of both validations is timed and switched off; the higher of the two counts.
    """
    switched, timed = costs.share_of_checks, costs.timed_share
    measured = f"{100 * timed:.1f} % timed, {format_share(switched)} switched off"
    what = "validation of request and response, share of the CPU time of a list of 100"
    yield Verdict(TARGETS["validation"], what, measured, 100 * max(timed, switched.median))
    ratio = costs.redis_ratio
    yield Verdict(TARGETS["redis"], TARGETS["redis"].title, format_estimate(ratio), ratio.median)
    for name, guarantee in (("key", WITH_KEY), ("audit", AUDIT)):
        if "create" in costs.microseconds.get(guarantee, {}):
            cost, total = costs.microseconds[guarantee]["create"], costs.totals["create"].median
            share = Estimate(*(each / total for each in (cost.median, cost.low, cost.high)))
            yield Verdict(TARGETS[name], TARGETS[name].title, format_share(share), 100 * share.median)


def worker_verdicts(workers: Workers) -> Iterator[Verdict]:
    """Yield the verdicts on the gain, the cost and the memory of a second worker."""
    for name, ratio in (("worker_gain", workers.gain()), ("worker_price", workers.price())):
        what = f"read one product, {TARGETS[name].title}"
        yield Verdict(TARGETS[name], what, format_estimate(ratio), ratio.median)
    further = workers.further_bytes / MEGABYTE
    yield Verdict(TARGETS["further"], TARGETS["further"].title, f"{further:.0f}", further)


def rate_verdicts(ours: ServerResults, theirs: ServerResults, name: str) -> Iterator[Verdict]:
    """Yield for each compared operation the verdict on the ratio of our request rate to that of a peer."""
    for (operation, connections), loads in theirs.loads.items():
        if operation not in COMPARED.get(name, OPERATIONS_BY_NAME) or operation in EXCUSED.get(name, ()):
            continue
        ratio = paired_ratios(ours.rates(operation, connections), [each.rate for each in loads])
        title = OPERATIONS_BY_NAME[operation].title
        what = f"{title}, {connections} connections, requests/s, Sartiq / {name}"
        yield Verdict(TARGETS[name].of_operation(operation), what, format_estimate(ratio), ratio.median)


def tail_verdicts(ours: ServerResults, peers: Mapping[str, ServerResults]) -> Iterator[Verdict]:
    """Yield for each operation the verdict on our p99 at 80 % load beside the lowest one of the peers.

    Args:
        peers: The results of the peers by title, without servers that check nothing.
    """
    for operation, share in ours.latencies:
        if share != TAIL_SHARE:
            continue
        found = {
            title: p99
            for title, results in peers.items()
            if (p99 := results.latency_percentile(operation, share, 0.99)) is not None
        }
        p99 = ours.latency_percentile(operation, share, 0.99)
        if not found or p99 is None:
            continue
        best = min(found, key=found.__getitem__)
        count = sum(len(each.seconds) for each in ours.latencies[operation, share])
        what = f"{OPERATIONS_BY_NAME[operation].title}, p99 at {share:.0%} load, Sartiq / best peer"
        measured = (
            f"{p99 / found[best]:.2f} ({p99:.1f} ms over {count:,} requests; {best}: {found[best]:.1f} ms)"
        )
        yield Verdict(TARGETS["tail"], what, measured, p99 / found[best])


def _page_size_verdicts(ours: ServerResults) -> Iterator[Verdict]:
    for small, large in pairwise(PAGES):
        found = [
            [each.database_cpu_seconds_per_1000 for each in ours.loads.get((name, 8), ())]
            for name in (small, large)
        ]
        if all(found):
            ratio = paired_ratios(*found)
            titles = (OPERATIONS_BY_NAME[name].title for name in (small, large))
            what = f"PostgreSQL's CPU time, {' / '.join(titles)}"
            yield Verdict(TARGETS["pages"], what, format_estimate(ratio), ratio.median)


def _deep_page_verdicts(ours: ServerResults) -> Iterator[Verdict]:
    for first, deep in DEPTHS:
        ratio = paired_ratios(
            *([median(seconds) for seconds in ours.sequential[name]] for name in (deep, first))
        )
        what = f"latency of {OPERATIONS_BY_NAME[deep].title} / {OPERATIONS_BY_NAME[first].title}"
        yield Verdict(TARGETS["deep"].of_operation(first), what, format_estimate(ratio), ratio.median)
