"""Processes as the kernel sees them (Linux): which core they run on, how long they worked, what they hold."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def pinned_to_cores(*numbers: int) -> Iterator[None]:
    """Let this thread, and whatever it starts within the block, run on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_process(process_id: int, *cores: int) -> None:
    """Let a process, all that descend from it, and whatever they start run on these cores alone."""
    for each in process_tree(process_id):
        with contextlib.suppress(ProcessLookupError):  # ended meanwhile
            os.sched_setaffinity(each, cores)


def process_tree(process_id: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [process_id]
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
        for task in Path(f"/proc/{process_id}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += process_tree(int(child))
    return found


def cpu_seconds(process_id: int) -> float:
    """Return how long a process and its descendants have worked so far."""
    return sum(cpu_seconds_by_process(process_id).values())


def cpu_seconds_by_process(process_id: int) -> dict[int, float]:
    """Return how long a process and each of its descendants have worked so far, by their ids."""
    found = {}
    for each in process_tree(process_id):
        with contextlib.suppress(OSError):  # ended meanwhile
            found[each] = own_cpu_seconds(each)
    return found


def own_cpu_seconds(process_id: int) -> float:
    """Return how long a process has worked so far, without its descendants."""
    # The clock of a process by its number, as clock_getcpuclockid(3) makes it: exact, where /proc counts in
    # hundredths of a second.
    return time.clock_gettime(~process_id << 3 | 2)


def resident_bytes(process_id: int) -> int:
    """Return the memory that a process and its descendants hold."""
    return _status(process_id, "VmRSS")


def peak_bytes(process_id: int) -> int:
    """Return the most memory that a process and its descendants ever held, each at its own time."""
    return _status(process_id, "VmHWM")


def _status(process_id: int, name: str) -> int:
    found = 0
    for each in process_tree(process_id):
        lines = Path(f"/proc/{each}/status").read_text().splitlines()
        found += next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return found * 1024
