"""A trace collector (OTLP over HTTP) that stores the spans it receives."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tools.servers.http_recorder import RecordedRequest, StubResponse, run_http_recorder

SECONDS_TO_WAIT = 20


@dataclass(frozen=True)
class ReceivedSpan:
    """One received span. Ids are hexadecimal; the parent of a root span is empty."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    attributes: dict[str, Any]
    trace_state: str


class Collector:
    """The received spans; `endpoint` is the URL to configure in a server."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._spans: list[ReceivedSpan] = []
        self._changed = threading.Condition()

    def add(self, request: ExportTraceServiceRequest) -> None:
        """Store the spans of an export request."""
        with self._changed:
            for resource in request.resource_spans:
                service = get_attributes(resource.resource)["service.name"]
                for scope in resource.scope_spans:
                    self._spans.extend(parse_span(service, span) for span in scope.spans)
            self._changed.notify_all()

    def wait_for_trace(self, trace_id: str, *names: str) -> list[ReceivedSpan]:
        """Return the spans of a trace as soon as spans with all of these names are among them."""
        deadline = time.monotonic() + SECONDS_TO_WAIT
        with self._changed:
            while True:
                spans = [span for span in self._spans if span.trace_id == trace_id]
                missing = set(names) - {span.name for span in spans}
                if not missing:
                    return spans
                assert self._changed.wait(deadline - time.monotonic()), f"no span {missing} in {spans}"


def get_attributes(holder: Any) -> dict[str, Any]:
    """Return the attributes of a span or resource by name."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


def parse_span(service: str, span: Any) -> ReceivedSpan:
    """Return a span of the protocol as a ReceivedSpan."""
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return ReceivedSpan(
        service, span.name, *ids, span.kind, span.status.code == 2, get_attributes(span), span.trace_state
    )


@contextmanager
def run_collector() -> Iterator[Collector]:
    """Run a collector on a free port."""
    collector = Collector()

    def respond(request: RecordedRequest) -> StubResponse:
        if request.path != "/v1/traces":
            return StubResponse(404)
        is_compressed = request.headers.get("content-encoding") == "gzip"
        body = gzip.decompress(request.body) if is_compressed else request.body
        collector.add(ExportTraceServiceRequest.FromString(body))
        return StubResponse(headers={"content-type": "application/x-protobuf"})

    with run_http_recorder(respond) as recorder:
        collector.endpoint = recorder.url
        yield collector
