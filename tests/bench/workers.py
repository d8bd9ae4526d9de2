"""Whether a second worker pays: servers of one and of two processes answer the same reads in turns.

Server, PostgreSQL and load share both cores, for one worker as for two: nothing but their number differs.
What one worker leaves idle of them is all that a second one can win.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace

import httpx

from tests.bench.closed_loop import Load, load
from tests.bench.contenders import OURS, Contender
from tests.bench.figures import Figure, ratios, rotated
from tests.bench.operations import NAMED
from tests.bench.processes import seconds_of_each
from tests.bench.serving import BOTH_CORES, Stage, started

COUNTS = (1, 2)
CONNECTIONS = 32
# What these servers do beside would only disturb.
QUIET = {"RENDER_WORKERS": "0", "WEBHOOK_SENDERS": "0"}


@dataclass(frozen=True)
class Workers:
    """What was measured of one worker and of two, round by round."""

    one: Sequence[Load]
    two: Sequence[Load]
    cores: Sequence[float]
    """How many cores server, PostgreSQL and load used with one worker."""

    def gain(self) -> Figure:
        """Return how many times as many requests a second two answer."""
        return ratios([each.rate for each in self.two], [each.rate for each in self.one])

    def price(self) -> Figure:
        """Return how many times as long two work for a request."""
        return ratios(*([each.cpu_seconds_per_1000 for each in loads] for loads in (self.two, self.one)))


def _with_workers(count: int) -> Contender:
    command = (OURS.command[0], "-m", "uvicorn", "wsgi:app", "--lifespan", "on", "--workers", str(count))
    told = ("--port", "{port}", "--no-access-log", "--timeout-keep-alive", "30", "--log-level", "warning")
    return replace(OURS, name=f"workers_{count}", command=(*command, *told))


def measure_workers(stage: Stage, database: str, rounds: int, seconds: int) -> Workers:
    """Start both and let them take turns."""
    operation = NAMED["read"]
    found: dict[int, list[Load]] = {count: [] for count in COUNTS}
    cores: dict[int, list[float]] = {count: [] for count in COUNTS}
    with stage.on_both_cores(), contextlib.ExitStack() as stack:
        servers = {
            count: stack.enter_context(
                started(stage, _with_workers(count), database, cores=BOTH_CORES, **QUIET)
            )
            for count in COUNTS
        }
        with httpx.Client() as client:
            requests = operation.requests(client, stage.scale)
        for number in range(rounds + 1):
            for count in rotated(COUNTS, number):
                before, loading = seconds_of_each(stage.cluster.process_id), _seconds_of_load()
                seen = load(servers[count], operation, requests, CONNECTIONS, seconds)
                after = seconds_of_each(stage.cluster.process_id)
                # Who came or ended meanwhile does not count.
                beside = sum(after[each] - before[each] for each in before.keys() & after)
                worked = seen.cpu_seconds + beside + _seconds_of_load() - loading
                # The first round was a warm-up.
                if number:
                    found[count].append(seen)
                    cores[count].append(worked / seen.seconds)
    return Workers(found[1], found[2], cores[1])


def _seconds_of_load() -> float:
    """Return how many seconds whatever made load and is over has worked."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
