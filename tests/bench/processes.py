"""Processes as the kernel sees them (Linux): which core they run on, how long they worked, what they hold."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def on_core(number: int) -> Iterator[None]:
    """Let this thread, and whatever it starts within the block, run on one core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree_of(process_id: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [process_id]
    for task in Path(f"/proc/{process_id}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree_of(int(child))
    return found


def cpu_seconds(process_id: int) -> float:
    """Return how long a process and its descendants have worked so far."""
    ticks = 0
    for each in tree_of(process_id):
        columns = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(columns[11]) + int(columns[12])
    return ticks / _TICKS_PER_SECOND


def resident_bytes(process_id: int) -> int:
    """Return the memory that a process and its descendants hold."""
    return _status(process_id, "VmRSS")


def peak_bytes(process_id: int) -> int:
    """Return the most memory that a process and its descendants ever held, each at its own time."""
    return _status(process_id, "VmHWM")


def _status(process_id: int, name: str) -> int:
    found = 0
    for each in tree_of(process_id):
        lines = Path(f"/proc/{each}/status").read_text().splitlines()
        found += next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return found * 1024
