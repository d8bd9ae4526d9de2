"""What is being worked on, for logs and traces: the request or job, and the trace (W3C) that it is part of.

Values only; nothing is sent from here.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One step of a trace; as text it is a `traceparent` (W3C Trace Context, 3.2)."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> TraceContext:
        """The next step of the same trace."""
        return TraceContext(self.trace_id, secrets.token_hex(8), self.sampled)


def new_trace() -> TraceContext:
    """The first step of a trace that nobody has begun before."""
    return TraceContext(secrets.token_hex(16), secrets.token_hex(8))


def parse_traceparent(text: str | None) -> TraceContext | None:
    """The step that a `traceparent` names; None when it is malformed, as the standard wants."""
    match = _TRACEPARENT.fullmatch(text or "")
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    # Later versions may append; version ff and ids of zeros are forbidden.
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))


@dataclass(slots=True)
class LogContext:
    """The request or job at hand, filled in as more of it becomes known; threads that work on it share it."""

    request_id: str | None = None
    operation_id: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    generation_id: str | None = None
    api_key_id: str | None = None


_log_context: ContextVar[LogContext | None] = ContextVar("work", default=None)
_trace: ContextVar[TraceContext | None] = ContextVar("trace", default=None)


def current_log_context() -> LogContext | None:
    """What is being worked on, None between requests and jobs."""
    return _log_context.get()


def set_log_context(context: LogContext) -> None:
    """Make this what the running context works on, for as long as the context lives."""
    _log_context.set(context)


@contextmanager
def log_context(context: LogContext) -> Iterator[LogContext]:
    """Work on this within the block."""
    token = _log_context.set(context)
    try:
        yield context
    finally:
        _log_context.reset(token)


def current_trace() -> TraceContext | None:
    """The step of the trace that is running, None outside of every trace."""
    return _trace.get()


def current_traceparent() -> str | None:
    """The same as text, for whoever goes on with it elsewhere."""
    trace = _trace.get()
    return str(trace) if trace else None


@contextmanager
def use_trace(trace: TraceContext) -> Iterator[None]:
    """Be this step of its trace within the block."""
    token = _trace.set(trace)
    try:
        yield
    finally:
        _trace.reset(token)
