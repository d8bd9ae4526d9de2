"""What the current thread works on: the request or job for log lines, and the trace (W3C Trace Context).

Holds values only. It sends nothing and records nothing: `studio.infrastructure.telemetry.traces` does.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TraceContext = SpanContext
"""One span of a trace: `trace_id`, `span_id`, whether it is sampled, and the `trace_state` of its vendors."""

_PROPAGATOR = TraceContextTextMapPropagator()


def new_trace() -> TraceContext:
    """Return the root span of a new trace."""
    return TraceContext(
        secrets.randbits(128),
        secrets.randbits(64),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def new_child(parent: TraceContext) -> TraceContext:
    """Return a new span of the same trace, with the sampling decision and the `tracestate` of its parent."""
    return TraceContext(parent.trace_id, secrets.randbits(64), False, parent.trace_flags, parent.trace_state)


def extract_trace(headers: Mapping[str, Sequence[str]]) -> TraceContext | None:
    """Return the span that the headers of a request name, or None if they are missing or malformed.

    Args:
        headers: The values of each `traceparent` and `tracestate` header field, by lower-case name.
    """
    # Repeated `traceparent` fields are malformed (W3C Trace Context, section 3.2.1): the trace starts anew.
    if len(headers.get("traceparent", ())) != 1:
        return None
    span = get_current_span(_PROPAGATOR.extract(headers, Context())).get_span_context()
    return span if span.is_valid else None


def parse_traceparent(text: str | None) -> TraceContext | None:
    """Return the span that a stored `traceparent` names, or None if it is missing or malformed."""
    return extract_trace({"traceparent": [text]}) if text else None


def to_headers(trace: TraceContext) -> dict[str, str]:
    """Return the `traceparent` header of a span, and its `tracestate` header unless it is empty."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, set_span_in_context(NonRecordingSpan(trace), Context()))
    return headers


@dataclass(slots=True)
class LogContext:
    """The request or job that log lines belong to.

    Fields are filled in as they become known. Threads that work on the same request or job share the object.
    """

    request_id: str | None = None
    operation_id: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    generation_id: str | None = None
    api_key_id: str | None = None
    problem: str | None = None
    """The problem code of the response to the request."""
    limit: str | None = None
    """What rejected the request, if its problem code does not say it."""


_log_context: ContextVar[LogContext | None] = ContextVar("log_context", default=None)
_trace: ContextVar[TraceContext | None] = ContextVar("trace", default=None)


def current_log_context() -> LogContext | None:
    """Return the log context of the current request or job, or None outside of both."""
    return _log_context.get()


def set_log_context(context: LogContext) -> None:
    """Set the log context until the current `contextvars` context ends."""
    _log_context.set(context)


@contextmanager
def log_context(context: LogContext) -> Iterator[LogContext]:
    """Set the log context within the block."""
    token = _log_context.set(context)
    try:
        yield context
    finally:
        _log_context.reset(token)


def current_trace() -> TraceContext | None:
    """Return the current span, or None outside of a trace."""
    return _trace.get()


def current_trace_headers() -> dict[str, str]:
    """Return the headers that continue the current trace in another process; none outside of a trace."""
    trace = _trace.get()
    return to_headers(trace) if trace else {}


def current_traceparent() -> str | None:
    """Return the current span as a `traceparent`, to be stored, or None outside of a trace."""
    return current_trace_headers().get("traceparent")


@contextmanager
def use_trace(trace: TraceContext) -> Iterator[None]:
    """Make this the current span within the block."""
    token = _trace.set(trace)
    try:
        yield
    finally:
        _trace.reset(token)
