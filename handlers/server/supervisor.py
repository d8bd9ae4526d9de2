"""Serve with several worker processes at one port: fork them, replace lost ones, reload and stop gracefully.

The workers are copies of this process, made when the application exists but no thread, connection or tracer:
they share its memory. This process stays like that, because it also forks the replacements. It knows neither
the application nor the HTTP server: both are in the functions that it gets.
"""

from __future__ import annotations

import gc
import json
import logging
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

from studio.infrastructure.telemetry.metrics import forget_worker

logger = logging.getLogger("sartiq.server")

POLL_SECONDS = 0.1
MAX_STARTS = 3
"""Deaths within `STABLE_SECONDS` after which the first start fails."""
STABLE_SECONDS = 10.0
"""A process that ends earlier counts as a failed start, and delays the next one."""
MAX_DELAY_SECONDS = 30.0
MAX_STOP_SECONDS = 12.0
"""When workers are killed that do not end. They take ten seconds at most, unless they hang."""
BACKLOG = 2048
METRICS = -1
"""The slot of the process that serves the metrics of all workers."""
RESUME = "--resume"


@dataclass(frozen=True)
class Resumed:
    """What a reload passes to the new program, which has the same process id."""

    listener: int
    """The descriptor of the listening socket."""
    metrics_folder: str
    first_slot: int
    """The number of the first worker. The files of its metrics have this name."""
    retiring: dict[int, int]
    """The slots of the workers with the old code, by process id."""

    @classmethod
    def parse(cls, text: str) -> Resumed:
        """Return what the argument of `RESUME` contains."""
        values = json.loads(text)
        retiring = {int(pid): slot for pid, slot in values.pop("retiring").items()}
        return cls(**values, retiring=retiring)


class Supervisor:
    """Runs worker processes until SIGINT or SIGTERM. SIGHUP replaces them, and this program, by new code.

    Args:
        workers: How many workers serve.
        address: Host and port.
        resumed: What the old program passed on, None at the first start.
    """

    def __init__(self, workers: int, address: tuple[str, int], resumed: Resumed | None) -> None:
        if resumed is None:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self.listener = socket.create_server(address, family=family, backlog=BACKLOG)
            self.state = Resumed(self.listener.fileno(), tempfile.mkdtemp(prefix="sartiq-metrics-"), 0, {})
        else:
            self.listener = socket.socket(fileno=resumed.listener)
            self.listener.set_inheritable(False)
            self.state = resumed
        self.workers = workers
        self.slots = range(self.state.first_slot, self.state.first_slot + workers)
        # Shared with the workers: each sets the byte of its slot when it serves.
        self.ready = mmap.mmap(-1, 2 * workers)
        self.retiring = dict(self.state.retiring)
        self.running: dict[int, int] = {}
        """The slot of each process, by process id."""
        self.started_at: dict[int, float] = {}
        self.start_at: dict[int, float] = {}
        """When a lost process is replaced, by slot."""
        self.failures = 0
        self.has_served = False
        self.check: subprocess.Popen[bytes] | None = None
        self.signals: set[int] = set()

    def run(
        self,
        serve: Callable[[int], object],
        serve_metrics: Callable[[], object] | None,
        on_started: Callable[[], None],
    ) -> int:
        """Serve until a signal ends it and return the exit status.

        Args:
            serve: Serves as the worker of a slot, in a process of its own.
            serve_metrics: Serves the metrics of all workers, in a process of its own.
            on_started: Called when all workers serve.
        """
        self.functions: dict[int, Callable[[], object]] = {slot: partial(serve, slot) for slot in self.slots}
        if serve_metrics is not None:
            self.functions[METRICS] = serve_metrics
        # What exists now lives as long as the process. A collection in a worker would copy its pages.
        gc.freeze()
        gc.enable()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda received, _frame: self.signals.add(received))
        self.start_at = dict.fromkeys(self.functions, 0.0)
        status = 0
        while not self.signals & {signal.SIGTERM, signal.SIGINT}:
            self._reap()
            if self.failures >= MAX_STARTS and not self.has_served and not self.retiring:
                logger.error("stopped: %d processes ended as soon as they were started", self.failures)
                status = 1
                break
            self._start_due()
            if not self.has_served and all(self.ready[slot] for slot in self.slots):
                self.has_served = True
                self._terminate(self.retiring)
                on_started()
            if signal.SIGHUP in self.signals and self.has_served and not self.retiring:
                self.signals.discard(signal.SIGHUP)
                self._check_new_code()
            time.sleep(POLL_SECONDS)
        self._stop()
        return status

    def mark_ready(self, slot: int) -> None:
        """Note that the worker of this slot serves; the worker calls it."""
        self.ready[slot] = 1

    def _start_due(self) -> None:
        now = time.monotonic()
        for slot in [slot for slot, due in self.start_at.items() if due <= now]:
            del self.start_at[slot]
            pid = os.fork()
            if pid == 0:
                self._run_child(slot)
            self.running[pid], self.started_at[pid] = slot, now

    def _run_child(self, slot: int) -> None:
        """Call the function of a slot and end the process, without the clean-up of its parent."""
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # A terminal sends these to all its processes; the parent passes on what concerns a worker.
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            # Otherwise the signal to stop has arrived before its handler was removed.
            if not self.signals & {signal.SIGTERM, signal.SIGINT}:
                self.functions[slot]()
            status = 0
        except Exception:
            logger.exception("a worker failed")
        finally:
            os._exit(status)

    def _reap(self) -> None:
        for pid, slot in list(self.retiring.items()):
            if _find_status(pid) is not None:
                del self.retiring[pid]
                forget_worker(self.state.metrics_folder, slot)
        for pid, slot in list(self.running.items()):
            status = _find_status(pid)
            if status is not None:
                del self.running[pid]
                self._replace(pid, slot, status)
        if self.check is not None and (status := self.check.poll()) is not None:
            self.check = None
            if status == 0:
                self._execute_new_code()
            logger.error("not reloaded: the new code ended with status %d; the old workers go on", status)

    def _replace(self, pid: int, slot: int, status: int) -> None:
        """Have a process started in the slot of one that ended, later if it did not run for long."""
        now = time.monotonic()
        is_stable = now - self.started_at.pop(pid) >= STABLE_SECONDS
        self.failures = 0 if is_stable else self.failures + 1
        delay = 0.0 if is_stable else min(MAX_DELAY_SECONDS, 0.25 * 2**self.failures)
        if slot != METRICS:
            self.ready[slot] = 0
            forget_worker(self.state.metrics_folder, slot)
        logger.error("worker %d ended with status %d; another one starts in %.1f s", pid, status, delay)
        self.start_at[slot] = now + delay

    def _check_new_code(self) -> None:
        """Start to prepare the database with the new code: if that fails, the old workers go on."""
        if self.check is None:
            logger.info("reload: checking the new code")
            self.check = subprocess.Popen([sys.executable, *_arguments(), "--prepare-only"])  # noqa: S603 - own arguments

    def _execute_new_code(self) -> None:
        """Replace this program, which keeps its process id, its socket and its workers."""
        metrics = [pid for pid, slot in self.running.items() if slot == METRICS]
        for pid in metrics:  # it has the port of the next one
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            del self.running[pid]
        self.listener.set_inheritable(True)
        first_slot = self.workers - self.state.first_slot
        state = replace(self.state, first_slot=first_slot, retiring=self.running)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new program handles it
        os.execv(sys.executable, [sys.executable, *_arguments(), RESUME, json.dumps(asdict(state))])  # noqa: S606 - no shell

    def _stop(self) -> None:
        self.listener.close()
        children = {**self.running, **self.retiring}
        if self.check is not None:
            children[self.check.pid] = METRICS
        self._terminate(children)
        deadline = time.monotonic() + MAX_STOP_SECONDS
        while children and time.monotonic() < deadline:
            children = {pid: slot for pid, slot in children.items() if _find_status(pid) is None}
            time.sleep(POLL_SECONDS)
        for pid in children:
            logger.error("worker %d did not end in %.0f s: killed", pid, MAX_STOP_SECONDS)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(self.state.metrics_folder, ignore_errors=True)

    @staticmethod
    def _terminate(children: dict[int, int]) -> None:
        for pid in children:
            os.kill(pid, signal.SIGTERM)


def _find_status(pid: int) -> int | None:
    """Return the exit status of a child that has ended, as `Popen.returncode` has it, or None."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 1
    return os.waitstatus_to_exitcode(status) if ended else None


def _arguments() -> list[str]:
    """Return the arguments of the interpreter, without those of an earlier reload."""
    arguments = sys.orig_argv[1:]
    return arguments[: arguments.index(RESUME)] if RESUME in arguments else arguments
