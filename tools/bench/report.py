"""Format the results of a run as Markdown: first the targets, then all figures. Writes no file."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from tools.bench.calm import Steadiness
from tools.bench.environment import BOTH_CORES
from tools.bench.feature_costs import OPERATIONS as COST_OPERATIONS
from tools.bench.feature_costs import TITLES, Costs
from tools.bench.measurements import Plan
from tools.bench.operations import OPERATIONS_BY_NAME
from tools.bench.rows import ACTIVE_ORGANIZATIONS, Scale
from tools.bench.servers import ServerSpec
from tools.bench.shop import BATCH, ShopResults
from tools.bench.statistics import Estimate, paired_ratios
from tools.bench.tables import markdown_table
from tools.bench.targets import (
    MEGABYTE,
    Run,
    Verdict,
    format_estimate,
    format_share,
    summarize,
)
from tools.bench.workers import CONNECTIONS, Workers

TARGETS_BEGIN, TARGETS_END = "<!-- targets, written by make bench -->", "<!-- end of targets -->"
COSTS_BEGIN, COSTS_END = "<!-- costs of guarantees, written by make bench -->", "<!-- end of costs -->"
SHOP_BEGIN, SHOP_END = "<!-- rates of a shop, written by make bench -->", "<!-- end of shop -->"
NOT_SERVED = "–"


def describe_machine() -> str:
    """Return a short description of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    python = platform.python_version()
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB of memory, Linux, Python {python}"


class Report:
    """The report about one run."""

    def __init__(
        self,
        specs: Sequence[ServerSpec],
        run: Run,
        plan: Plan,
        scale: Scale,
        steadiness: Steadiness,
    ) -> None:
        self.run, self.results, self.plan, self.scale = run, run.results, plan, scale
        self.steadiness = steadiness
        self.specs = [each for each in specs if each.name in run.results]
        self.peers = [each for each in self.specs if not each.is_ours]
        self.ours = run.results["ours"]

    def lines(self, verdicts: Sequence[Verdict], plot: str) -> Iterator[str]:
        """Yield the lines of the report, which shows the plot with this file name."""
        yield from self._head()
        yield from (f"![Requests per second of Sartiq, divided by those of each peer]({plot})", "")
        yield from ("## Targets", "")
        yield TARGETS_BEGIN
        yield from targets_table(verdicts)
        yield from (TARGETS_END, "", "## Every figure beside its target", "")
        yield from markdown_table(("Figure", "Target", "Measured", "Met"), [each.cells for each in verdicts])
        for connections in (8, 64):
            yield from self._rates(connections)
        yield from self._cpu_time()
        yield from self._latencies()
        if self.run.costs is not None:
            yield from _feature_costs(self.run.costs)
        if self.run.workers is not None:
            yield from self._workers(self.run.workers)
        if self.run.shop is not None:
            yield from _shop(self.run.shop)
        yield from self._processes()
        yield from self._omissions()

    def _head(self) -> Iterator[str]:
        yield from ("# Results of `make bench`", "")
        yield (
            f"{self.scale.organizations} organizations with {self.scale.products:,} products each, "
            f"{self.scale.rows:,} rows; {ACTIVE_ORGANIZATIONS} accounts send requests. "
            f"{describe_machine()}. "
            "The server has one core and one worker; PostgreSQL and the load generator share the other. "
            f"{self.plan.rounds} rounds of "
            f"{self.plan.seconds} s in rotating order after a warm-up. Figures are medians, with the lowest "
            "and the highest round in brackets. The machine is shared, so compare ratios, not times. "
            "Sign-in is not measured: password hashes are slow by design. Rate limits are counted and too "
            "high to be reached. Commits do not wait for the disk, for any server."
        )
        yield from ("", self.steadiness.describe(), "")

    def _rates(self, connections: int) -> Iterator[str]:
        names = [name for name, count in self.ours.loads if count == connections]
        if not names:
            return
        yield from (f"## Requests per second, {connections} connections", "")
        heads = ["Operation", *(each.title for each in self.specs)]
        heads += [f"Sartiq / {each.name}" for each in self.peers]
        rows = []
        for name in names:
            by_server = [self.results[each.name].rates(name, connections) for each in self.specs]
            cells = [f"{median(rates):,.0f}" if rates else NOT_SERVED for rates in by_server]
            cells += [self._ratio_to(each.name, name, connections) for each in self.peers]
            rows.append([OPERATIONS_BY_NAME[name].title, *cells])
        yield from markdown_table(heads, rows)

    def _ratio_to(self, peer: str, name: str, connections: int) -> str:
        rates = self.results[peer].rates(name, connections)
        our_rates = self.ours.rates(name, connections)
        return format_estimate(paired_ratios(our_rates, rates)) if rates else NOT_SERVED

    def plot_data(self) -> dict[str, Any]:
        """Return the data for `plot.py`."""
        every = [name for name, count in self.ours.loads if count == 8]
        names = [
            name for name in every if all((name, 8) in self.results[each.name].loads for each in self.peers)
        ]
        return {
            "operations": [OPERATIONS_BY_NAME[name].title.replace("`", "") for name in names],
            "peers": {
                each.title: [
                    asdict(paired_ratios(self.ours.rates(name, 8), self.results[each.name].rates(name, 8)))
                    for name in names
                ]
                for each in self.peers
            },
        }

    def _cpu_time(self) -> Iterator[str]:
        for title, read in (
            ("the server", lambda load: load.cpu_seconds_per_1000),
            ("PostgreSQL", lambda load: load.database_cpu_seconds_per_1000),
        ):
            yield from (f"## CPU seconds of {title} per 1,000 requests, 8 connections", "")
            rows = []
            for name in (name for name, count in self.ours.loads if count == 8):
                loads = [self.results[each.name].loads.get((name, 8), []) for each in self.specs]
                cells = [
                    format_estimate(Estimate.from_rounds(list(map(read, rounds)))) if rounds else NOT_SERVED
                    for rounds in loads
                ]
                rows.append([OPERATIONS_BY_NAME[name].title, *cells])
            yield from markdown_table(["Operation", *(each.title for each in self.specs)], rows)

    def _latencies(self) -> Iterator[str]:
        yield from ("## Latency in milliseconds at a rate that all servers sustain", "")
        yield (
            "Requests arrive at random times, at a share of the rate that the slowest server sustains over "
            "8 connections and over 64. p50 / p95 / p99 of all rounds, counted from the scheduled time of a "
            "request."
        )
        yield ""
        rows = []
        for (name, share), rounds in self.ours.latencies.items():
            count = sum(len(each.seconds) for each in rounds)
            cells = [self._percentiles(each.name, name, share) for each in self.specs]
            rows.append([f"{OPERATIONS_BY_NAME[name].title}, {share:.0%}, {count:,} requests", *cells])
        yield from markdown_table(["Operation", *(each.title for each in self.specs)], rows)

    def _percentiles(self, server: str, operation: str, share: float) -> str:
        results = self.results[server]
        parts = [results.latency_percentile(operation, share, part) for part in (0.50, 0.95, 0.99)]
        return " / ".join(f"{each:.1f}" for each in parts if each is not None) or NOT_SERVED

    def _workers(self, workers: Workers) -> Iterator[str]:
        yield from ("## One and two workers", "")
        busy = median(workers.cores)
        connections = 64 if self.ours.rates("read", 64) else 8
        alone = median(self.ours.rates("read", connections))
        yield (
            f"Reads of one product, {CONNECTIONS} connections. Server, PostgreSQL and load generator share "
            f"both cores, with one worker and with two. With one worker they use {busy:.2f} cores, so two "
            f"workers could handle at most {len(BOTH_CORES) / busy:.2f} times as many requests with the same "
            f"CPU time per request. On its own core, as above, one worker handles {alone:,.0f} requests per "
            f"second over {connections} connections: threads of one process slow each other down on two "
            "shared cores."
        )
        yield ""
        rows = [
            [
                title,
                format_estimate(Estimate.from_rounds([each.rate for each in loads]), 0),
                format_estimate(Estimate.from_rounds([each.cpu_seconds_per_1000 for each in loads])),
            ]
            for title, loads in (("one", workers.one), ("two", workers.two))
        ]
        yield from markdown_table(("Workers", "requests/s", "CPU seconds per 1,000 requests"), rows)

    def _processes(self) -> Iterator[str]:
        yield from ("## Processes", "")
        rows = [
            [
                each.title,
                f"{median(results.starts):.2f}",
                *(
                    f"{value / MEGABYTE:.0f}"
                    for value in (
                        results.idle_bytes,
                        results.warm_bytes,
                        results.loaded_bytes,
                        results.peak_bytes,
                    )
                ),
                f"{results.requests:,}",
                f"{results.statements[1]} / {results.statements[100]}",
                str(results.errors),
            ]
            for each in self.specs
            if (results := self.results[each.name])
        ]
        heads = (
            "",
            "start, s of CPU time",
            "idle, MB",
            "after the first round, MB",
            "after the run, MB",
            "peak, MB",
            "requests",
            "statements, 1 / 100 rows",
            "errors",
        )
        yield from markdown_table(heads, rows)

    def _omissions(self) -> Iterator[str]:
        yield from ("## What the peers leave out", "")
        yield (
            "All servers pass the same check over HTTP (`conformance_check.py`) before they are measured, "
            "except for the operations that they do not have. No target is about the invalid create of a "
            "server without guarantees. Batches and published images are measured for Sartiq and the bare "
            "server only: a peer would have to rebuild the product. The others have no:"
        )
        yield ""
        for each in self.peers:
            yield f"- **{each.title}**: {'; '.join(each.omissions)}."
        yield ""
        yield (
            "Sartiq verifies the signature of a token once (it caches 1,000 tokens; the benchmark uses 50) "
            "and reads the session from the database for each request; Fastify and the bare server cache "
            "tokens as well, the others verify the signature each time. Sartiq reads the `count` of a list, "
            "which triggers update on each write; the peers count the rows on each read and have no triggers."
        )


def _feature_costs(costs: Costs) -> Iterator[str]:
    yield from ("## Cost of each guarantee, in microseconds", "")
    turns = ", ".join(
        f"{costs.rounds[name]:,} of {OPERATIONS_BY_NAME[name].title}" for name in COST_OPERATIONS
    )
    yield (
        "CPU time per request: medians with their 95 % confidence intervals in brackets. Validation, entity "
        "tags and rate limits are timed in their functions. Row-level security, the audit log and "
        "idempotency keys are switched off and on between two requests, and the CPU time of the server and "
        f"its PostgreSQL backends is compared. Turns: {turns}."
    )
    yield ""
    yield COSTS_BEGIN
    yield from costs_table(costs)
    yield from (COSTS_END, "")
    yield (
        f"Both validations take {100 * costs.timed_share:.1f} % of the CPU time of a list of 100 when they "
        f"are timed, and {format_share(costs.share_of_checks)} when they are switched off and on."
    )
    yield ""


def costs_table(costs: Costs) -> Iterator[str]:
    """Yield the lines of the table of costs, which the performance page has, too."""
    totals = [f"{costs.totals[name].median:,.0f}" for name in COST_OPERATIONS]
    rows = [["*total CPU time of a request*", *totals]]
    for guarantee, title in TITLES.items():
        by_operation = costs.microseconds[guarantee]
        cells = [
            format_estimate(by_operation[name], 0) if name in by_operation else "" for name in COST_OPERATIONS
        ]
        rows.append([title, *cells])
    yield from markdown_table(["", *(OPERATIONS_BY_NAME[name].title for name in COST_OPERATIONS)], rows)
    yield "(Empty cells: lists have no entity tag, and reads write no audit event.)"


def _shop(shop: ShopResults) -> Iterator[str]:
    yield from ("## Imports, batches and the change feed", "")
    yield (
        "A server with its embedded workers and PostgreSQL share both cores. A CSV file is imported twice, "
        f"batches of {BATCH} items approve predictions, and the change feed is read in pages of 100. Then an "
        "import adds images, half of them from URLs. Peak memory of the server: "
        f"{shop.peak_bytes / MEGABYTE:.0f} MB, with images "
        f"{shop.peak_bytes_with_images / MEGABYTE:.0f} MB."
    )
    yield ""
    yield SHOP_BEGIN
    yield from shop.list_table()
    yield from (SHOP_END, "")


def targets_table(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield the lines of the table of targets, which the performance page has, too."""
    heads = ("Figure", "Target", "Measured, all operations", "Met")
    yield from markdown_table(heads, list(summarize(verdicts)))


def replace_tables(results: str, page: str) -> str:
    """Return a page with its tables replaced by those of the results."""
    for begin, end in ((TARGETS_BEGIN, TARGETS_END), (COSTS_BEGIN, COSTS_END), (SHOP_BEGIN, SHOP_END)):
        head, found, rest = page.partition(begin)
        table = results.partition(begin)[2].partition(end)[0]
        if found and table:
            page = head + begin + table + end + rest.partition(end)[2]
    return page
