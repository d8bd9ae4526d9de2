"""Run a function in a copy of this process, which may be killed. It need not import anything again."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable

SECONDS = 60
"""How long the copy may take on a busy machine. SIGALRM then ends it."""


def run_in_fork(function: Callable[[], object]) -> int:
    """Call a function in a copy of this process, and return its exit status as `Popen.returncode` does."""
    return wait_for_fork(start_fork(function))


def start_fork(function: Callable[[], object]) -> int:
    """Start to call a function in a copy of this process, and return the id of that process."""
    with warnings.catch_warnings():
        # Python 3.12 warns of locks that other threads may hold: the alarm ends a copy that waits for one.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(SECONDS)
            function()
            status = 0
        except BaseException:  # noqa: BLE001 - neither fixtures nor pytest end in the copy
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    return child


def wait_for_fork(child: int) -> int:
    """Wait for the end of the copy, and return its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_this_process(*_: object) -> None:
    """End this process as the operating system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
