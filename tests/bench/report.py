"""What a run says, as Markdown: targets first, then every figure. Writes no file."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from tests.bench.contenders import Contender
from tests.bench.figures import Figure, percentile, ratios
from tests.bench.guarantees import ASKED as ASKED_FOR_COSTS
from tests.bench.guarantees import TITLES, Costs
from tests.bench.measuring import Plan, Seen
from tests.bench.operations import NAMED
from tests.bench.rows import ASKED, Scale
from tests.bench.targets import MEGABYTE, Verdict, spread


def machine() -> str:
    """Return in general words what this machine is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    python = platform.python_version()
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB of memory, Linux, Python {python}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
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
        contenders: Sequence[Contender],
        seen: Mapping[str, Seen],
        costs: Costs,
        plan: Plan,
        scale: Scale,
    ) -> None:
        self.costs = costs
        self.contenders, self.seen, self.plan, self.scale = contenders, seen, plan, scale
        self.peers = [each for each in contenders if not each.is_ours]
        self.ours = seen["ours"]

    def lines(self, verdicts: Sequence[Verdict]) -> Iterator[str]:
        """Give the report."""
        yield from self._head()
        yield from ("![Requests a second, ours beside the others](results.svg)", "")
        yield from ("## Targets", "")
        rows = [
            (each.what, each.measured, each.target, "yes" if each.is_met else "**no**") for each in verdicts
        ]
        yield from table(("Figure", "Measured", "Target", "Met"), rows)
        for connections in (8, 64):
            yield from self._rates(connections)
        yield from self._work()
        yield from self._latencies()
        yield from self._guarantees()
        yield from self._processes()
        yield from self._less()

    def _head(self) -> Iterator[str]:
        yield from ("# Results of `make bench`", "")
        yield (
            f"{self.scale.organizations} organizations with {self.scale.products:,} products each, "
            f"{self.scale.rows:,} rows; {ASKED} accounts ask. {machine()}. The server has one core and one "
            f"worker; PostgreSQL and the load share the other core. {self.plan.rounds} rounds of "
            f"{self.plan.seconds} s in rotating order after a warm-up; medians, in brackets the lowest and "
            "the highest round. Times on a shared machine say little: look at the ratios. Signing in is not "
            "measured: to compute the hash of a password is meant to take its time."
        )
        yield ""

    def _rates(self, connections: int) -> Iterator[str]:
        names = [name for name, count in self.ours.loads if count == connections]
        yield from (f"## Requests a second, {connections} connections", "")
        heads = ["Operation", *(each.title for each in self.contenders)]
        heads += [f"ours / {each.name}" for each in self.peers]
        rows = []
        for name in names:
            rates = [Figure.of(self.seen[each.name].rates(name, connections)) for each in self.contenders]
            mine = self.ours.rates(name, connections)
            compared = [ratios(mine, self.seen[each.name].rates(name, connections)) for each in self.peers]
            cells = [f"{figure.median:,.0f}" for figure in rates] + [spread(each) for each in compared]
            rows.append([NAMED[name].title, *cells])
        yield from table(heads, rows)

    def drawing(self) -> dict[str, Any]:
        """Return what `plot.py` draws."""
        names = [name for name, count in self.ours.loads if count == 8]
        return {
            "operations": [NAMED[name].title.replace("`", "") for name in names],
            "peers": {
                each.title: [
                    asdict(ratios(self.ours.rates(name, 8), self.seen[each.name].rates(name, 8)))
                    for name in names
                ]
                for each in self.peers
            },
        }

    def _work(self) -> Iterator[str]:
        yield from ("## Seconds of CPU that a server works for 1,000 requests, 8 connections", "")
        rows = []
        for name in (name for name, count in self.ours.loads if count == 8):
            loads = [self.seen[each.name].loads[name, 8] for each in self.contenders]
            figures = [Figure.of([each.cpu_seconds_per_1000 for each in rounds]) for rounds in loads]
            rows.append([NAMED[name].title, *(spread(each) for each in figures)])
        yield from table(["Operation", *(each.title for each in self.contenders)], rows)

    def _latencies(self) -> Iterator[str]:
        yield from ("## Milliseconds to an answer at a rate that all can bear", "")
        yield (
            "Requests come by chance at a share of what the slowest contender answers at its best. "
            "p50 / p95 / p99, counted from when a request was due."
        )
        yield ""
        rows = []
        for (name, share), rounds in self.ours.latencies.items():
            rate = len(rounds[0].seconds) / self.plan.open_loop_seconds
            cells = [self._percentiles(each.name, name, share) for each in self.contenders]
            rows.append([f"{NAMED[name].title}, {share:.0%}: {rate:.0f} a second", *cells])
        yield from table(["Operation", *(each.title for each in self.contenders)], rows)

    def _percentiles(self, contender: str, operation: str, share: float) -> str:
        rounds = self.seen[contender].latencies[operation, share]
        medians = [
            Figure.of([1000 * percentile(each.seconds, part) for each in rounds]).median
            for part in (0.50, 0.95, 0.99)
        ]
        return " / ".join(f"{each:.1f}" for each in medians)

    def _guarantees(self) -> Iterator[str]:
        yield from ("## What each guarantee costs, in microseconds", "")
        yield (
            "How much longer server and PostgreSQL together work for a request than without it: the median "
            "of many short turns, in brackets their middle half. Where that includes 0, the cost is less "
            "than can be seen."
        )
        yield ""
        whole = [f"{self.costs.whole[name].median:,.0f}" for name in ASKED_FOR_COSTS]
        rows = [["*all work for a request*", *whole]]
        for guarantee, title in TITLES.items():
            costs = self.costs.microseconds[guarantee]
            cells = [spread(costs[name], 0) if name in costs else "" for name in ASKED_FOR_COSTS]
            rows.append([title, *cells])
        yield from table(["", *(NAMED[name].title for name in ASKED_FOR_COSTS)], rows)

    def _processes(self) -> Iterator[str]:
        yield from ("## Processes", "")
        rows = [
            [
                each.title,
                f"{median(seen.starts):.2f}",
                *(
                    f"{value / MEGABYTE:.0f}"
                    for value in (seen.idle_bytes, seen.later_bytes, seen.peak_bytes)
                ),
                f"{seen.requests:,}",
                f"{seen.statements[1]} / {seen.statements[100]}",
                str(seen.errors),
            ]
            for each in self.contenders
            if (seen := self.seen[each.name])
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
        yield from table(heads, rows)

    def _less(self) -> Iterator[str]:
        yield from ("## What the peers do less", "")
        yield "All pass the same check over HTTP (`blackbox.py`) before they are timed. They lack:"
        yield ""
        for each in self.peers:
            yield f"- **{each.title}**: {'; '.join(each.less)}."
