"""Traces across API and workers, sent over OTLP when a collector is configured; else nothing is recorded.

Our part of a trace begins at its entries, a request or a job, and has steps within.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from studio.telemetry.context import TraceContext, current_trace, new_trace, use_trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Attributes = Mapping[str, str | int]
RecordedSpan = Span
"""A step while it is recorded, or what stands in for it when nothing is."""

SERVER, CONSUMER, INTERNAL = SpanKind.SERVER, SpanKind.CONSUMER, SpanKind.INTERNAL
EXPORT_TIMEOUT_SECONDS = 3


class Tracing:
    """Sends the traces of this process to a collector; `start` and `stop` once each.

    Without an endpoint nothing is sent. The SDK reads the other standard variables (`OTEL_TRACES_SAMPLER`,
    `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*`, `OTEL_RESOURCE_ATTRIBUTES`) by itself.
    """

    def __init__(self, endpoint: str | None, service: str) -> None:
        self._endpoint, self._service = endpoint, service
        self._provider: TracerProvider | None = None

    def start(self) -> None:
        """Record from now on."""
        if self._endpoint is None:
            return
        # Here, because a process without a collector need not wait for what they load.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(f"{self._endpoint}/v1/traces", timeout=EXPORT_TIMEOUT_SECONDS)
        resource = Resource.create({"service.name": self._service})
        self._provider = provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        _set_tracer(provider.get_tracer("sartiq"))

    def stop(self) -> None:
        """Send what is left, for a few seconds at most, and record no more."""
        if self._provider is not None:
            _set_tracer(None)
            self._provider.shutdown()
            self._provider = None


_tracer: Tracer | None = None


def _set_tracer(tracer: Tracer | None) -> None:
    global _tracer
    _tracer = tracer


def is_recording() -> bool:
    """Whether anybody collects traces of this process: attributes that cost something are for them."""
    return _tracer is not None


@contextmanager
def start_root_span(
    name: str, kind: SpanKind, parent: TraceContext | None, attributes: Attributes
) -> Iterator[Span]:
    """Begin our part of the trace of `parent`, or a new trace; within the block it is the current one."""
    if _tracer is None:
        with use_trace(parent.child() if parent else new_trace()):
            yield INVALID_SPAN
        return
    span = _tracer.start_span(name, _parent_context(parent), kind, attributes)
    with use_trace(_to_trace_context(span)):
        try:
            yield span
        except Exception as error:
            mark_failed(span, type(error).__qualname__)
            raise
        finally:
            span.end()


@contextmanager
def start_span(name: str, attributes: Attributes | None = None) -> Iterator[Span]:
    """Time what happens in the block as a step of the current trace."""
    if _tracer is None:
        yield INVALID_SPAN
        return
    with start_root_span(name, INTERNAL, current_trace(), attributes or {}) as span:
        yield span


def mark_failed(span: Span, kind: str) -> None:
    """Mark a step as failed, by the kind of its error only: what an error says may quote a secret."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def record_span(name: str, parent: TraceContext | None, began_ns: int, attributes: Attributes) -> None:
    """Record a step of which only now is known that it belongs to a trace; it ends now."""
    if _tracer is not None:
        span = _tracer.start_span(name, _parent_context(parent), INTERNAL, attributes, start_time=began_ns)
        span.end(time.time_ns())


def _parent_context(step: TraceContext | None) -> Context:
    if step is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if step.sampled else TraceFlags.DEFAULT)
    told = SpanContext(int(step.trace_id, 16), int(step.span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(told), Context())


def _to_trace_context(span: Span) -> TraceContext:
    told = span.get_span_context()
    return TraceContext(f"{told.trace_id:032x}", f"{told.span_id:016x}", bool(told.trace_flags.sampled))
