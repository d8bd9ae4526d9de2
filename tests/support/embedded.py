"""Wait for the end of an embedded PostgreSQL and of other processes."""

from __future__ import annotations

import time
from pathlib import Path

from db.embedded import supervisor

SECONDS_TO_STOP = 60
"""How long it may take on a busy machine."""


def wait_until_stopped(folder: Path) -> None:
    """Wait until no supervisor of a cluster runs, which is half a second behind its last user."""
    deadline = time.monotonic() + SECONDS_TO_STOP
    while supervisor.is_running(folder):
        assert time.monotonic() < deadline, "PostgreSQL still runs"
        time.sleep(0.05)


def is_process_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended may wait for its parent."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
