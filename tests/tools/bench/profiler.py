"""A deterministic profiler that knows stages: each function's own time goes to its stage, or its caller's.

`cProfile` keeps who called whom, but not on whose behalf: what a library does for two of ours it cannot tell
apart. This one has the stack at each call, and keeps its own time out of what it measures.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from tests.tools.bench.stages import OURS, REST, STATEMENTS, TRANSACTION_ENDS, WAITING, find_stage


@dataclass
class RequestProfile:
    """What one request took: nanoseconds and calls by stage, and what of waiting was work after all."""

    nanoseconds: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: Counter[str] = field(default_factory=Counter)
    waiting_work: int = 0
    statements: int = 0
    ends: int = 0
    """Of transactions."""
    unmapped: set[str] = field(default_factory=set)
    """Functions of ours that no stage names."""


class CallStack:
    """What runs in one thread. To be given to `sys.setprofile`, and asked only there."""

    def __init__(self, spent: RequestProfile) -> None:
        self._spent = spent
        self._stages: list[str] = []
        self._since = self._work_since = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take note of a call or a return; coroutines call and return each time they go on or pause."""
        self._record(time.perf_counter_ns())
        if event == "call":
            self._push(frame.f_globals.get("__name__", ""), frame.f_code.co_qualname)
        elif event == "c_call":
            self._push(getattr(argument, "__module__", None) or "", argument.__qualname__)
        elif self._stages:
            # Nothing to leave: the functions that were running when it began return, too.
            self._stages.pop()
        if self._stages and self._stages[-1] == WAITING:
            self._work_since = time.thread_time_ns()
        self._since = time.perf_counter_ns()

    def _record(self, now: int) -> None:
        # Between two callbacks of the event loop nothing runs.
        if not self._stages:
            return
        stage = self._stages[-1]
        self._spent.nanoseconds[stage] += now - self._since
        if stage == WAITING:
            self._spent.waiting_work += time.thread_time_ns() - self._work_since

    def _push(self, module: str, function: str) -> None:
        stage = find_stage(module, function)
        if stage is None:
            if module.partition(".")[0] in OURS:
                self._spent.unmapped.add(f"{module}.{function}")
            stage = self._stages[-1] if self._stages else REST
        self._stages.append(stage)
        self._spent.calls[stage] += 1
        name = f"{module}.{function}"
        self._spent.statements += name in STATEMENTS
        self._spent.ends += name in TRANSACTION_ENDS


class Profiler:
    """Profiles the thread that asks and those of a pool, from `begin` to `end`."""

    def __init__(self) -> None:
        self._spent: RequestProfile | None = None

    def begin(self) -> None:
        """Profile from now on."""
        self._spent = RequestProfile()
        sys.setprofile(CallStack(self._spent))

    def stop(self) -> RequestProfile:
        """Stop, and tell what was spent."""
        sys.setprofile(None)
        spent, self._spent = self._spent, None
        if spent is None:
            raise RuntimeError("nothing was profiled")
        return spent

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do some work in another thread as part of what is profiled."""
        if self._spent is None:
            return work(*arguments)
        sys.setprofile(CallStack(self._spent))
        try:
            return work(*arguments)
        finally:
            sys.setprofile(None)


class ProfiledPool(ThreadPoolExecutor):
    """A pool of one thread whose work is profiled."""

    def __init__(self, profiling: Profiler) -> None:
        super().__init__(1, thread_name_prefix="request")
        self._profiling = profiling

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Let the thread do it."""
        return super().submit(self._profiling.run, work, *arguments, **keywords)
