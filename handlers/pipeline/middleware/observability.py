"""Around every request and all that answers it: its id and trace, its log line, its measures, its span.

It sees the answer as it leaves and changes nothing of it.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote
from uuid import UUID

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db.tenancy import Caller, caller_context, current_organization
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.telemetry import metrics, traces
from studio.telemetry.context import (
    LogContext,
    TraceContext,
    current_log_context,
    extract_trace,
    set_log_context,
)

access_log = logging.getLogger("sartiq.access")

_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_UUID = re.compile(r"[0-9A-Fa-f-]{36}")
MAX_PATH_LENGTH = 300
MAX_SEGMENT_LENGTH = 36
"""Of a path that nothing is known about; the signature of a link is longer, an id just as long."""


class ObservabilityMiddleware:
    """Begins the call of a request and tells how it ended; `base_path` is where the contract begins."""

    def __init__(self, app: ASGIApp, *, base_path: str) -> None:
        self.app = app
        self.base_path = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call = RequestContext(_request_id(scope))
        work = LogContext(request_id=call.request_id)
        set_log_context(work)
        began = time.perf_counter()
        answer = _ResponseRecorder(send)
        with traces.start_root_span(scope["method"], traces.SERVER, _incoming_trace(scope), {}) as span:
            metrics.record_request_start()
            try:
                await self.app({**scope, REQUEST_CONTEXT: call}, receive, answer)
            finally:
                ended = time.perf_counter()
                operation_id = call.operation.operation_id if call.operation else None
                work.operation_id = operation_id
                latency = (
                    answer.started_at - began - call.wait_seconds if answer.started_at is not None else None
                )
                metrics.record_request_end(operation_id, scope["method"], answer.status, latency)
                path = _redact_path(scope["path"], call)
                self._log(scope, path, call, answer.status, ended - began)
                if traces.is_recording():
                    self._set_span_attributes(span, scope, path, call, answer.status)

    def _log(self, scope: Scope, path: str, call: RequestContext, status: int, seconds: float) -> None:
        method, milliseconds = scope["method"], round(seconds * 1000, 1)
        access_log.info(
            "%s %s %s %sms",
            method,
            path,
            status,
            milliseconds,
            extra={
                "request_id": call.request_id,
                "method": method,
                "path": self.base_path + call.operation.path if call.operation else path,
                "status": status,
                "duration_ms": milliseconds,
                "address": (scope.get("client") or (None,))[0],
            },
        )

    def _set_span_attributes(
        self, span: traces.RecordedSpan, scope: Scope, path: str, call: RequestContext, status: int
    ) -> None:
        """Tell what the conventions of OpenTelemetry for HTTP ask for; not the query, which may hold keys."""
        known = scope["method"] in metrics.METHODS
        told: dict[str, str | int] = {
            "http.request.method": scope["method"] if known else "_OTHER",
            "url.path": path,
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
            "sartiq.request_id": call.request_id,
        }
        if call.operation:
            span.update_name(call.operation.operation_id)
            told["http.route"] = self.base_path + call.operation.path
        if status:
            told["http.response.status_code"] = status
        span.set_attributes(told)
        if status >= 500:
            traces.mark_failed(span, str(status))


class _ResponseRecorder:
    """Passes an answer on and remembers its status and when it began."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.started_at: float | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.started_at = message["status"], time.perf_counter()
        await self._send(message)


@contextmanager
def request_caller_context(
    caller: Caller, permission: str | None, on_organization: Callable[[UUID], object]
) -> Iterator[Caller]:
    """Act as `caller` within the block; whose rows were touched there is told with the request."""
    with caller_context(caller, permission, on_organization):
        try:
            yield caller
        finally:
            work, organization_id = current_log_context(), current_organization()
            if work is not None and organization_id is not None:
                work.organization_id = str(organization_id)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _VALID_REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return secrets.token_hex(10)


def _incoming_trace(scope: Scope) -> TraceContext | None:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        if name in (b"traceparent", b"tracestate"):
            headers.setdefault(name.decode("ascii"), []).append(value.decode("latin-1"))
    return extract_trace(headers)


def _redact_path(path: str, call: RequestContext) -> str:
    """The path for people: ids stay, what may be a key or an address of mail gives way to its name."""
    if call.operation is None:
        return "/".join(_redact_segment(segment) for segment in path[:MAX_PATH_LENGTH].split("/"))
    shown = path
    for name, value in call.path_values.items():
        if not _UUID.fullmatch(value):
            shown = shown.replace(f"/{value}", f"/{{{name}}}")
    return quote(shown, safe="/{}")


def _redact_segment(segment: str) -> str:
    return "*" if len(segment) > MAX_SEGMENT_LENGTH or "@" in segment else quote(segment)
