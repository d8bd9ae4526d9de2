"""The numbers of a run: what fails it, its table, and its file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.abuse.bystander import Observation
from tools.servers.server import REPORTS

MAX_RATIO = 5.0
FLOOR_MS = 20.0
MAX_PROBE_MS = 1_000.0
"""Of the slowest probe. A phase sends too few probes for a p99."""
MAX_GROWTH_MEGABYTES = 150
"""Of servers, worker and beat, from the end of the warm-up to the end of the run."""
MEGABYTE = 1_000_000
SLOWEST = 10
"""Requests of the bystander that the file lists for each phase."""


@dataclass(frozen=True)
class Phase:
    """One attack, or the control, and what it did to the bystander and the processes."""

    name: str
    seen: Observation
    statuses: dict[str, int]
    generator_cpu: float
    """Share of one core that the load generator used."""
    server_cpu: float
    """Cores that the two servers used."""
    memory: dict[str, int]
    """Bytes of each part after the phase."""
    growth: int
    """Growth of this project's processes in bytes."""
    peak: int
    """Peak resident bytes of the two servers."""

    def as_json(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            "name": self.name,
            "requests": len(self.seen.requests.milliseconds),
            "errors": self.seen.errors,
            "p50_ms": self.seen.requests.p(50),
            "p99_ms": self.seen.requests.p(99),
            "max_ms": self.seen.requests.p(100),
            "slowest": self.seen.requests.slowest(SLOWEST),
            "slowest_probe_ms": self.seen.probes.p(100),
            "job_ms": self.seen.jobs.milliseconds,
            "webhook_ms": self.seen.webhooks.milliseconds,
            "statuses": self.statuses,
            "generator_cpu": self.generator_cpu,
            "server_cpu": self.server_cpu,
            "memory_bytes": self.memory,
            "growth_bytes": self.growth,
            "peak_bytes": self.peak,
        }


def find_failures(idle: Phase, phase: Phase) -> list[str]:
    """Return what is wrong with a phase."""
    failures = []
    if phase.seen.errors:
        failures.append(f"{len(phase.seen.errors)} errors, the first: {phase.seen.errors[0]}")
    p99, limit = phase.seen.requests.p(99), MAX_RATIO * max(FLOOR_MS, idle.seen.requests.p(99))
    if p99 >= limit:
        failures.append(f"p99 is {p99:.0f} ms, the limit {limit:.0f} ms")
    slowest_probe = phase.seen.probes.p(100)
    if slowest_probe >= MAX_PROBE_MS:
        failures.append(f"the slowest probe took {slowest_probe:.0f} ms, the limit {MAX_PROBE_MS:.0f} ms")
    return [f"{phase.name}: {failure}" for failure in failures]


COLUMNS = (
    ("phase", 14), ("errors", 7), ("p50 ms", 8), ("p99 ms", 8), ("ratio", 6), ("probe", 7), ("job s", 7),
    ("hook s", 7), ("sent", 7), ("429", 6), ("503", 6), ("grown", 6), ("peak", 6), ("cores", 6), ("load", 5),
)  # fmt: skip
"""Names and widths. `probe`: the slowest one in ms; `hook`: from the end of a generation to its event;
`grown` and `peak`: MB; `cores`: used by the two servers; `load`: the load generator's share of a core."""


def format_header() -> str:
    """Return the first line of the table."""
    return "".join(f"{name:>{width}}" if width < 14 else f"{name:<{width}}" for name, width in COLUMNS)


def format_row(idle: Phase, phase: Phase) -> str:
    """Return one line of the table."""
    seen, statuses = phase.seen, phase.statuses
    p99 = seen.requests.p(99)
    cells = (
        len(seen.errors),
        f"{seen.requests.p(50):.1f}",
        f"{p99:.1f}",
        f"{p99 / max(FLOOR_MS, idle.seen.requests.p(99)):.1f}",
        f"{seen.probes.p(100):.1f}",
        f"{seen.jobs.p(100) / 1000:.1f}",
        f"{seen.webhooks.p(100) / 1000:.1f}",
        sum(statuses.values()),
        statuses.get("429", 0),
        statuses.get("503", 0),
        f"{phase.growth / MEGABYTE:+.0f}",
        f"{phase.peak / MEGABYTE:.0f}",
        f"{phase.server_cpu:.1f}",
        f"{phase.generator_cpu:.1f}",
    )
    line = "".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS[1:], strict=True))
    others = [f"{status}: {count}" for status, count in statuses.items() if status not in ("429", "503")]
    return f"{phase.name:<14}{line}   {', '.join(others)}"


def judge(phases: list[Phase]) -> list[str]:
    """Return what is wrong with the run."""
    idle = phases[0]
    failures = []
    for phase in phases:
        failures += find_failures(idle, phase)
    before, after = (own_memory(phase.memory) for phase in (idle, phases[-1]))
    if after - before > MAX_GROWTH_MEGABYTES * MEGABYTE:
        failures.append(
            f"memory: grown by {(after - before) / MEGABYTE:.0f} MB, the limit {MAX_GROWTH_MEGABYTES} MB"
        )
    return failures


def own_memory(memory: Mapping[str, int]) -> int:
    """Return the bytes of this project's processes: the memory of PostgreSQL and Redis has settings."""
    return sum(number for name, number in memory.items() if name not in ("PostgreSQL", "Redis"))


def write_report(phases: list[Phase], failures: list[str], seed: int) -> Path:
    """Write all numbers to a file and return its path."""
    REPORTS.mkdir(exist_ok=True)
    path = REPORTS / "abuse.json"
    report = {
        "seed": seed,
        "load_average": os.getloadavg(),
        "cores": os.cpu_count(),
        "failures": failures,
        "phases": [phase.as_json() for phase in phases],
    }
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path
