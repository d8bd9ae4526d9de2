"""A deterministic profiler with stages: a function's own time counts for its stage, or for its caller's.

`cProfile` records pairs of caller and callee, but not the whole stack, so it cannot tell for which stage a
library function works. This profiler has the stack at each call, and excludes its own time.
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

from tools.bench.stages import MESSAGE, OURS, REST, STATEMENTS, TRANSACTION_ENDS, WAITING, find_stage


@dataclass
class RequestProfile:
    """The profile of one request: nanoseconds and calls by stage, and the CPU time of the waiting stage."""

    nanoseconds: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: Counter[str] = field(default_factory=Counter)
    waiting_work: int = 0
    statements: int = 0
    ends: int = 0
    """The number of commits and rollbacks."""
    messages: int = 0
    """The number of pipelines, each with several statements."""
    unmapped: set[str] = field(default_factory=set)
    """Functions of this project that belong to no stage."""


class CallStack:
    """The call stack of one thread, as a function for `sys.setprofile` in that thread."""

    def __init__(self, profile: RequestProfile) -> None:
        self._profile = profile
        self._stages: list[str] = []
        self._since = self._work_since = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Record a call or a return. A coroutine is called when it resumes and returns when it suspends."""
        self._record(time.perf_counter_ns())
        if event == "call":
            self._push(frame.f_globals.get("__name__", ""), frame.f_code.co_qualname)
        elif event == "c_call":
            self._push(getattr(argument, "__module__", None) or "", argument.__qualname__)
        elif self._stages:
            # The stack can be empty: functions that ran before profiling started return, too.
            self._stages.pop()
        if self._stages and self._stages[-1] == WAITING:
            self._work_since = time.thread_time_ns()
        self._since = time.perf_counter_ns()

    def _record(self, now: int) -> None:
        # The stack is empty between two callbacks of the event loop.
        if not self._stages:
            return
        stage = self._stages[-1]
        self._profile.nanoseconds[stage] += now - self._since
        if stage == WAITING:
            self._profile.waiting_work += time.thread_time_ns() - self._work_since

    def _push(self, module: str, function: str) -> None:
        stage = find_stage(module, function)
        if stage is None:
            if module.partition(".")[0] in OURS:
                self._profile.unmapped.add(f"{module}.{function}")
            stage = self._stages[-1] if self._stages else REST
        self._stages.append(stage)
        self._profile.calls[stage] += 1
        name = f"{module}.{function}"
        self._profile.statements += name in STATEMENTS
        self._profile.ends += name in TRANSACTION_ENDS
        self._profile.messages += name == MESSAGE


class Profiler:
    """Profiles the thread that calls `begin` and the threads of a pool, until `stop`."""

    def __init__(self) -> None:
        self._profile: RequestProfile | None = None

    def begin(self) -> None:
        """Start profiling in this thread."""
        self._profile = RequestProfile()
        sys.setprofile(CallStack(self._profile))

    def stop(self) -> RequestProfile:
        """Stop profiling and return the profile."""
        sys.setprofile(None)
        profile, self._profile = self._profile, None
        if profile is None:
            raise RuntimeError("`stop` was called without `begin`")
        return profile

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in a pool thread; profile it if profiling is on."""
        if self._profile is None:
            return work(*arguments)
        sys.setprofile(CallStack(self._profile))
        try:
            return work(*arguments)
        finally:
            sys.setprofile(None)


class ProfiledPool(ThreadPoolExecutor):
    """A pool of one thread that profiles its work."""

    def __init__(self, profiler: Profiler) -> None:
        super().__init__(1, thread_name_prefix="request")
        self._profiler = profiler

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Submit work to the thread and profile it."""
        return super().submit(self._profiler.run, work, *arguments, **keywords)
