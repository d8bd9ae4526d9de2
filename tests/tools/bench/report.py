"""What a run says, as Markdown: targets first, then every figure. Writes no file."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from tests.tools.bench.environment import BOTH_CORES
from tests.tools.bench.feature_costs import OPERATIONS as ASKED_FOR_COSTS
from tests.tools.bench.feature_costs import TITLES, Costs
from tests.tools.bench.measurements import Plan
from tests.tools.bench.operations import OPERATIONS_BY_NAME
from tests.tools.bench.rows import ACTIVE_ORGANIZATIONS, Scale
from tests.tools.bench.servers import ServerSpec
from tests.tools.bench.statistics import Estimate, paired_ratios
from tests.tools.bench.targets import (
    MEGABYTE,
    Run,
    Verdict,
    format_estimate,
    format_share,
    latency_percentiles,
)
from tests.tools.bench.workers import CONNECTIONS, Workers

COSTS_BEGIN, COSTS_END = "<!-- costs of guarantees, written by make bench -->", "<!-- end of costs -->"


def describe_machine() -> str:
    """Return in general words what this machine is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    python = platform.python_version()
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB of memory, Linux, Python {python}"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Give a table, its first column to the left and the others to the right."""
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'---:|' * (len(heads) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


class Report:
    """The pieces of the report about one run."""

    def __init__(
        self,
        specs: Sequence[ServerSpec],
        run: Run,
        plan: Plan,
        scale: Scale,
    ) -> None:
        self.run, self.results, self.plan, self.scale = run, run.results, plan, scale
        self.specs = [each for each in specs if each.name in run.results]
        self.peers = [each for each in self.specs if not each.is_ours]
        self.ours = run.results["ours"]

    def lines(self, verdicts: Sequence[Verdict]) -> Iterator[str]:
        """Give the report."""
        yield from self._head()
        yield from ("![Requests a second, ours beside the others](results.svg)", "")
        yield from ("## Targets", "")
        rows = [
            (each.what, each.measured, each.target, "yes" if each.is_met else "**no**") for each in verdicts
        ]
        yield from markdown_table(("Figure", "Measured", "Target", "Met"), rows)
        for connections in (8, 64):
            yield from self._rates(connections)
        yield from self._cpu_time()
        yield from self._latencies()
        if self.run.costs is not None:
            yield from _feature_costs(self.run.costs)
        if self.run.workers is not None:
            yield from self._workers(self.run.workers)
        yield from self._processes()
        yield from self._omissions()

    def _head(self) -> Iterator[str]:
        yield from ("# Results of `make bench`", "")
        yield (
            f"{self.scale.organizations} organizations with {self.scale.products:,} products each, "
            f"{self.scale.rows:,} rows; {ACTIVE_ORGANIZATIONS} accounts ask. {describe_machine()}. "
            f"The server has one core and one worker; PostgreSQL and the load share the other core. "
            f"{self.plan.rounds} rounds of "
            f"{self.plan.seconds} s in rotating order after a warm-up; medians, in brackets the lowest and "
            "the highest round. Times on a shared machine say little: look at the ratios. Signing in is not "
            "measured: to compute the hash of a password is meant to take its time. Limits are counted and "
            "too high to be met. A commit does not wait for the disk, for nobody."
        )
        yield ""

    def _rates(self, connections: int) -> Iterator[str]:
        names = [name for name, count in self.ours.loads if count == connections]
        yield from (f"## Requests a second, {connections} connections", "")
        heads = ["Operation", *(each.title for each in self.specs)]
        heads += [f"ours / {each.name}" for each in self.peers]
        rows = []
        for name in names:
            rates = [
                Estimate.from_rounds(self.results[each.name].rates(name, connections)) for each in self.specs
            ]
            mine = self.ours.rates(name, connections)
            compared = [
                paired_ratios(mine, self.results[each.name].rates(name, connections)) for each in self.peers
            ]
            cells = [f"{figure.median:,.0f}" for figure in rates] + [
                format_estimate(each) for each in compared
            ]
            rows.append([OPERATIONS_BY_NAME[name].title, *cells])
        yield from markdown_table(heads, rows)

    def plot_data(self) -> dict[str, Any]:
        """Return what `plot.py` draws."""
        names = [name for name, count in self.ours.loads if count == 8]
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
        yield from ("## Seconds of CPU that a server works for 1,000 requests, 8 connections", "")
        rows = []
        for name in (name for name, count in self.ours.loads if count == 8):
            loads = [self.results[each.name].loads[name, 8] for each in self.specs]
            figures = [
                Estimate.from_rounds([each.cpu_seconds_per_1000 for each in rounds]) for rounds in loads
            ]
            rows.append([OPERATIONS_BY_NAME[name].title, *(format_estimate(each) for each in figures)])
        yield from markdown_table(["Operation", *(each.title for each in self.specs)], rows)

    def _latencies(self) -> Iterator[str]:
        yield from ("## Milliseconds to an answer at a rate that all can bear", "")
        yield (
            "Requests come by chance at a share of what the slowest contender bears over 8 connections and "
            "over 64. p50 / p95 / p99, counted from when a request was due."
        )
        yield ""
        rows = []
        for (name, share), rounds in self.ours.latencies.items():
            rate = len(rounds[0].seconds) / self.plan.open_loop_seconds
            cells = [self._percentiles(each.name, name, share) for each in self.specs]
            rows.append([f"{OPERATIONS_BY_NAME[name].title}, {share:.0%}: {rate:.0f} a second", *cells])
        yield from markdown_table(["Operation", *(each.title for each in self.specs)], rows)

    def _percentiles(self, contender: str, operation: str, share: float) -> str:
        rounds = self.results[contender].latencies[operation, share]
        medians = [median(latency_percentiles(rounds, part)) for part in (0.50, 0.95, 0.99)]
        return " / ".join(f"{each:.1f}" for each in medians)

    def _workers(self, workers: Workers) -> Iterator[str]:
        yield from ("## One worker and two", "")
        busy = median(workers.cores)
        alone = median(self.ours.rates("read", 64))
        yield (
            f"Reading one product, {CONNECTIONS} connections. Server, PostgreSQL and load share the two "
            f"cores, with one worker as with two. With one they use {busy:.2f} cores: at the same work for a "
            f"request two could answer {len(BOTH_CORES) / busy:.2f} times as much. On a core of its own, as "
            f"above, one worker answers {alone:,.0f} a second over 64 connections: threads of one process "
            "that share two cores stand in each other's way."
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
        yield from markdown_table(("Workers", "requests/s", "CPU seconds for 1,000 requests"), rows)

    def _processes(self) -> Iterator[str]:
        yield from ("## Processes", "")
        rows = [
            [
                each.title,
                f"{median(results.starts):.2f}",
                *(
                    f"{value / MEGABYTE:.0f}"
                    for value in (results.idle_bytes, results.loaded_bytes, results.peak_bytes)
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
            "start, s",
            "idle, MB",
            "after, MB",
            "peak, MB",
            "requests",
            "statements, 1 / 100 rows",
            "errors",
        )
        yield from markdown_table(heads, rows)

    def _omissions(self) -> Iterator[str]:
        yield from ("## What the peers do less", "")
        yield "All pass the same check over HTTP (`blackbox.py`) before they are timed. They lack:"
        yield ""
        for each in self.peers:
            yield f"- **{each.title}**: {'; '.join(each.omissions)}."
        yield ""
        yield (
            "Ours verifies the signature of a token once (it remembers 1,000, and 50 are used here) and asks "
            "the database for its session each time; peers verify each time. Ours reads the `count` of a "
            "list, which triggers keep, and pays for that when it writes; peers count, and have no triggers."
        )


def _feature_costs(costs: Costs) -> Iterator[str]:
    yield from ("## What each guarantee costs, in microseconds", "")
    turns = ", ".join(
        f"{costs.rounds[name]:,} of {OPERATIONS_BY_NAME[name].title}" for name in ASKED_FOR_COSTS
    )
    yield (
        "Time of the processor for one request, medians with what they surely are (95 times of 100) in "
        "brackets. Checks, entity tags and counting are clocked in their functions. Policies, the audit log "
        "and keys are switched off and on between two requests, and the work of the server and of its side "
        f"of PostgreSQL is compared: turns, {turns}."
    )
    yield ""
    yield COSTS_BEGIN
    yield from costs_table(costs)
    yield from (COSTS_END, "")
    yield (
        f"Both checks are {100 * costs.timed_share:.1f} % of the work for a list of 100 by their clocks, "
        f"and {format_share(costs.share_of_checks)} by switching them off."
    )
    yield ""


def costs_table(costs: Costs) -> Iterator[str]:
    """Give the table of what guarantees cost, for the performance page too."""
    whole = [f"{costs.totals[name].median:,.0f}" for name in ASKED_FOR_COSTS]
    rows = [["*all work for a request*", *whole]]
    for guarantee, title in TITLES.items():
        found = costs.microseconds[guarantee]
        cells = [format_estimate(found[name], 0) if name in found else "" for name in ASKED_FOR_COSTS]
        rows.append([title, *cells])
    yield from markdown_table(["", *(OPERATIONS_BY_NAME[name].title for name in ASKED_FOR_COSTS)], rows)
    yield "(Empty: lists have no tag, and what only reads makes no event.)"


def replace_costs_table(results: str, text: str) -> str:
    """Return a text with the table of costs that the results have in the place of its own."""
    head, begin, rest = text.partition(COSTS_BEGIN)
    found = results.partition(COSTS_BEGIN)[2].partition(COSTS_END)[0]
    return head + begin + found + COSTS_END + rest.partition(COSTS_END)[2] if begin and found else text
