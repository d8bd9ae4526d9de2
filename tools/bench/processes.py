"""Processes on Linux: pin them to cores, and read their CPU time and memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def pinned_to_cores(*numbers: int) -> Iterator[None]:
    """Pin this thread, and all processes that it starts within the block, to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_process(process_id: int, *cores: int) -> None:
    """Pin a process, its descendants, and all processes that they start later, to these cores."""
    for each in process_tree(process_id):
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(each, cores)


def process_tree(process_id: int) -> list[int]:
    """Return the ids of a process and its descendants."""
    process_ids = [process_id]
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
        for task in Path(f"/proc/{process_id}/task").iterdir():
            for child in (task / "children").read_text().split():
                process_ids += process_tree(int(child))
    return process_ids


def cpu_seconds(process_id: int) -> float:
    """Return the CPU seconds of a process and its descendants."""
    return sum(cpu_seconds_by_process(process_id).values())


def cpu_seconds_by_process(process_id: int) -> dict[int, float]:
    """Return the CPU seconds of a process and of each of its descendants, by process id."""
    seconds = {}
    for each in process_tree(process_id):
        with contextlib.suppress(OSError):  # it has ended since
            seconds[each] = own_cpu_seconds(each)
    return seconds


def own_cpu_seconds(process_id: int) -> float:
    """Return the CPU seconds of a process without its descendants."""
    # The clock id that clock_getcpuclockid(3) returns for the process. This clock is exact; /proc counts in
    # hundredths of a second.
    return time.clock_gettime(~process_id << 3 | 2)


def wait_until_idle(process_id: int, limit_seconds: float = 20) -> bool:
    """Wait until a process and its descendants use less than half a core; return whether they do."""
    pause, deadline = 0.05, time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        before = cpu_seconds(process_id)
        time.sleep(pause)
        if cpu_seconds(process_id) - before < pause / 2:
            return True
    return False


def resident_bytes(process_id: int) -> int:
    """Return the resident memory of a process and its descendants."""
    return _sum_memory(process_id, "VmRSS")


def peak_bytes(process_id: int) -> int:
    """Return the sum of the peak resident memory of a process and of each of its descendants."""
    return _sum_memory(process_id, "VmHWM")


def proportional_bytes(process_id: int) -> int:
    """Return the memory of a process and its descendants; what several of them share is counted once."""
    return _sum_memory(process_id, "Pss", "smaps_rollup")


def _sum_memory(process_id: int, field: str, file: str = "status") -> int:
    kilobytes = 0
    for each in process_tree(process_id):
        lines = Path(f"/proc/{each}/{file}").read_text().splitlines()
        kilobytes += next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return kilobytes * 1024
