"""Tell whether the machine is calm and how fast it is at the moment. Knows no servers.

Speed is measured with a fixed loop on both cores, in wall-clock time: it falls when other processes use the
cores, when the host takes CPU time, and when the clock of the processor slows down.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench.processes import pinned_to_cores

CALM_SHARE = 0.15
"""The highest share of a core's time that other processes may use."""
MAX_MOVE = 0.15
"""The highest change of the machine's speed during a round whose results count."""
MAX_REPEATED = 12
"""How many rounds of a run are repeated. On a machine that is never steady, more would only take time."""
POLL_SECONDS = 2.0
CHUNKS, CHUNK_LOOPS = 5, 40_000
"""About 20 ms per chunk, so the loop takes 0.1 s per core."""
BLOCK = bytes(64)


def measure_speed(cores: Sequence[int]) -> list[float]:
    """Return the loops per second of each core, from the median chunk."""
    return [_measure_core(each) for each in cores]


def _measure_core(core: int) -> float:
    with pinned_to_cores(core):
        seconds = []
        for _ in range(CHUNKS):
            started_at = time.perf_counter()
            for _ in range(CHUNK_LOOPS):
                hashlib.sha256(BLOCK)
            seconds.append(time.perf_counter() - started_at)
    return CHUNK_LOOPS / sorted(seconds)[CHUNKS // 2]


def find_move(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the largest change of a core's speed, as a share of the higher value."""
    return max(abs(one - two) / max(one, two) for one, two in zip(before, after, strict=True))


def read_core_times(cores: Sequence[int]) -> list[tuple[int, int]]:
    """Return the busy time and the total time of each core since the start of the machine, in clock ticks."""
    times = []
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    for core in cores:
        (line,) = (line for line in lines if line.startswith(f"cpu{core} "))
        # user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of user time.
        values = [int(value) for value in line.split()[1:9]]
        times.append((sum(values) - values[3] - values[4], sum(values)))
    return times


def measure_busy_share(cores: Sequence[int]) -> float:
    """Return the share of the next POLL_SECONDS for which the busiest core was busy."""
    before = read_core_times(cores)
    time.sleep(POLL_SECONDS)
    pairs = zip(before, read_core_times(cores), strict=True)
    return max((busy - was_busy) / max(1, total - was) for (was_busy, was), (busy, total) in pairs)


def wait_until_calm(
    limit_seconds: float,
    report: Callable[[str], None],
    measure: Callable[[], float],
) -> bool:
    """Wait until other processes leave the cores idle, and return whether they did.

    Args:
        limit_seconds: The longest wait. The measurement itself takes a moment, so the first one is free.
        report: Called with each measured share while the machine is not calm.
        measure: Returns the busy share of the busiest core.
    """
    deadline = time.monotonic() + limit_seconds
    while (share := measure()) > CALM_SHARE:
        left = deadline - time.monotonic()
        if left <= 0:
            report(f"the machine is not calm: a core is {share:.0%} busy with other work; measuring anyway")
            return False
        report(f"waiting for a calm machine, at most {left:.0f} s more: a core is {share:.0%} busy")
    return True


@dataclass
class Steadiness:
    """What is known about the machine during a run."""

    was_calm: bool = True
    """Whether the machine was calm when the run started."""
    rounds: int = 0
    repeated: list[str] = field(default_factory=list)
    """The rounds whose results were discarded, because the speed of the machine moved."""
    unsteady: list[str] = field(default_factory=list)
    """The rounds that count although it moved, because repeating them did not help."""

    @property
    def is_steady(self) -> bool:
        """Return whether the results can be published: a calm start, and no unsteady round."""
        return self.was_calm and not self.unsteady

    def describe(self) -> str:
        """Return a sentence for the report."""
        calm = "was calm" if self.was_calm else "was **not** calm"
        text = (
            f"The machine {calm} at the start. Its speed was measured before and after each of {self.rounds} "
            f"rounds; {len(self.repeated)} of them were repeated because it moved by more than {MAX_MOVE:.0%}"
        )
        details = "; ".join(self.repeated[:5])
        text += f" ({details}{' ...' if len(self.repeated) > 5 else ''})." if self.repeated else "."
        if self.unsteady:
            text += f" {len(self.unsteady)} rounds count although it moved: {'; '.join(self.unsteady[:5])}."
        return text


def run_steadily(
    steadiness: Steadiness,
    step: str,
    run_round: Callable[[], None],
    report: Callable[[str], None],
    attempts: int = 3,
    speeds: Callable[[], Sequence[float]] = lambda: measure_speed(sorted(os.sched_getaffinity(0))),
) -> None:
    """Run a round, and run it again if the speed of the machine moved.

    Args:
        steadiness: Records what happened.
        step: The name of the round.
        run_round: Runs the round; each call must replace the results of the one before.
        report: Called with what is repeated and why.
        attempts: The largest number of runs.
        speeds: Returns the speed of each core.
    """
    steadiness.rounds += 1
    for attempt in range(1, attempts + 1):
        before = speeds()
        run_round()
        move = find_move(before, speeds())
        if move <= MAX_MOVE:
            return
        text = f"{step}: the speed of the machine moved by {move:.0%}"
        if attempt == attempts or len(steadiness.repeated) == MAX_REPEATED:
            steadiness.unsteady.append(text)
            report(f"{text}; the round counts, because it was repeated often enough")
            return
        steadiness.repeated.append(text)
        report(f"{text}; the round is repeated")
