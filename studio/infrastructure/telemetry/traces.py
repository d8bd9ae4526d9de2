"""Traces across the server and the workers, exported over OTLP if a collector is configured.

The server's part of a trace starts with a root span, a request or a job, which has child spans. Without a
collector no span is recorded, but trace ids are still passed on.
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
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)

from studio.infrastructure.telemetry.context import (
    TraceContext,
    current_trace,
    new_child,
    new_trace,
    use_trace,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Attributes = Mapping[str, str | int]
RecordedSpan = Span
"""A span that is being recorded, or the placeholder for one while nothing is recorded."""

SERVER, CONSUMER, INTERNAL = SpanKind.SERVER, SpanKind.CONSUMER, SpanKind.INTERNAL
EXPORT_TIMEOUT_SECONDS = 3


class Tracing:
    """The export of a process's traces to a collector; call `start` and `stop` once each.

    Without an endpoint nothing is exported. The SDK reads the other standard variables itself
    (`OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*`, `OTEL_RESOURCE_ATTRIBUTES`).
    """

    def __init__(self, endpoint: str | None, service: str) -> None:
        self._endpoint, self._service = endpoint, service
        self._provider: TracerProvider | None = None

    def start(self) -> None:
        """Start to record spans."""
        if self._endpoint is None:
            return
        # Imported here: a process without a collector starts faster without the SDK.
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
        """Stop recording, and export what is left for a few seconds at most."""
        if self._provider is not None:
            _set_tracer(None)
            self._provider.shutdown()
            self._provider = None


_tracer: Tracer | None = None


def _set_tracer(tracer: Tracer | None) -> None:
    global _tracer
    _tracer = tracer


def is_recording() -> bool:
    """Return whether spans are recorded: skip attributes that are costly to compute if not."""
    return _tracer is not None


@contextmanager
def start_root_span(
    name: str, kind: SpanKind, parent: TraceContext | None, attributes: Attributes
) -> Iterator[Span]:
    """Run the block as a span of the trace of `parent`, or of a new trace if it is None."""
    if _tracer is None:
        with use_trace(new_child(parent) if parent else new_trace()):
            yield INVALID_SPAN
        return
    span = _tracer.start_span(name, _parent_context(parent), kind, attributes)
    with use_trace(span.get_span_context()):
        try:
            yield span
        except Exception as error:
            mark_failed(span, type(error).__qualname__)
            raise
        finally:
            span.end()


@contextmanager
def start_span(name: str, attributes: Attributes | None = None) -> Iterator[Span]:
    """Run the block as a child of the current span."""
    if _tracer is None:
        yield INVALID_SPAN
        return
    with start_root_span(name, INTERNAL, current_trace(), attributes or {}) as span:
        yield span


def mark_failed(span: Span, kind: str) -> None:
    """Mark a span as failed with the type of its error only: the message may quote a secret."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def record_span(name: str, parent: TraceContext | None, began_ns: int, attributes: Attributes) -> None:
    """Record a span that ends now and whose trace was unknown when it started.

    Args:
        name: The name of the span.
        parent: The parent span.
        began_ns: When the span started, in nanoseconds since the epoch.
        attributes: The attributes of the span.
    """
    if _tracer is not None:
        span = _tracer.start_span(name, _parent_context(parent), INTERNAL, attributes, start_time=began_ns)
        span.end(time.time_ns())


def _parent_context(parent: TraceContext | None) -> Context:
    return Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
