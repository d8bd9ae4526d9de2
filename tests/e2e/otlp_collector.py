"""A collector of traces (OTLP over HTTP) that keeps what it gets: what the protocol's own messages decode."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.servers.http_recorder import RecordedRequest, StubResponse, run_http_recorder

SECONDS_TO_WAIT = 20


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it was sent; ids are hexadecimal, a root has no parent."""

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
    """Where spans arrive; `endpoint` is what a server is configured with."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._spans: list[ReceivedSpan] = []
        self._changed = threading.Condition()

    def add(self, request: ExportTraceServiceRequest) -> None:
        """Keep what a process has sent."""
        with self._changed:
            for resource in request.resource_spans:
                service = get_attributes(resource.resource)["service.name"]
                for scope in resource.scope_spans:
                    self._spans.extend(parse_span(service, span) for span in scope.spans)
            self._changed.notify_all()

    def wait_for_trace(self, trace_id: str, *names: str) -> list[ReceivedSpan]:
        """The spans of one trace, once those of these names are among them."""
        deadline = time.monotonic() + SECONDS_TO_WAIT
        with self._changed:
            while True:
                spans = [span for span in self._spans if span.trace_id == trace_id]
                missing = set(names) - {span.name for span in spans}
                if not missing:
                    return spans
                assert self._changed.wait(deadline - time.monotonic()), f"no span {missing} in {spans}"


def get_attributes(holder: Any) -> dict[str, Any]:
    """The attributes of a span or resource by name."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


def parse_span(service: str, span: Any) -> ReceivedSpan:
    """A span without the clothes of the protocol."""
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return ReceivedSpan(
        service, span.name, *ids, span.kind, span.status.code == 2, get_attributes(span), span.trace_state
    )


@contextmanager
def run_collector() -> Iterator[Collector]:
    """A collector that listens."""
    collector = Collector()

    def respond(asked: RecordedRequest) -> StubResponse:
        if asked.path != "/v1/traces":
            return StubResponse(404)
        is_packed = asked.headers.get("content-encoding") == "gzip"
        body = gzip.decompress(asked.body) if is_packed else asked.body
        collector.add(ExportTraceServiceRequest.FromString(body))
        return StubResponse(headers={"content-type": "application/x-protobuf"})

    with run_http_recorder(respond) as at:
        collector.endpoint = at.url
        yield collector
