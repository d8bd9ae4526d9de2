"""Assign the request id; write the access log line, the metrics, the root span and the uses of each request.

It observes the response as it leaves the server and does not change it.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote
from uuid import UUID

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db.caller import Caller, caller_context, current_organization
from handlers.contract.used_parts import Part, PartKind
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.infrastructure.telemetry import metrics, traces
from studio.infrastructure.telemetry.context import (
    LogContext,
    TraceContext,
    current_log_context,
    extract_trace,
    set_log_context,
)

access_log = logging.getLogger("sartiq.access")

_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_UUID = re.compile(r"[0-9A-Fa-f-]{36}")
NO_PROBLEM = "none"
"""The problem of a response above 399 without a problem document: the page of a missing guide."""
MAX_PATH_LENGTH = 300
_NAME = re.compile(r"[a-z][a-z0-9.-]{0,39}|")
"""A segment of an unknown path that is logged. Tokens, which must not be, have capitals or are longer."""


class ObservabilityMiddleware:
    """Create the request context and record the request.

    Args:
        app: The application.
        base_path: The path prefix of the contract.
        count_use: Counts the parts of the contract that a request of an API key uses.
    """

    def __init__(
        self, app: ASGIApp, *, base_path: str, count_use: Callable[[UUID, Iterable[Part]], None]
    ) -> None:
        self.app = app
        self.base_path = base_path
        self.count_use = count_use

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve and record one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = RequestContext(_request_id(scope))
        log_context = LogContext(request_id=context.request_id)
        set_log_context(log_context)
        started_at = time.perf_counter()
        response = _ResponseRecorder(send)
        with traces.start_root_span(scope["method"], traces.SERVER, _incoming_trace(scope), {}) as span:
            metrics.record_request_start()
            try:
                await self.app({**scope, REQUEST_CONTEXT: context}, receive, response)
            finally:
                ended_at = time.perf_counter()
                operation_id = context.operation.operation_id if context.operation else None
                log_context.operation_id = operation_id
                _record_problem(log_context, response.status)
                # Latency excludes what the client asked to wait for, and what a slow client takes to read.
                latency = (
                    response.started_at - started_at - context.wait_seconds
                    if response.started_at is not None
                    else None
                )
                metrics.record_request_end(operation_id, scope["method"], response.status, latency)
                self._count_use(scope, context)
                path = _redact_path(scope["path"], context)
                self._log(scope, path, context, response.status, ended_at - started_at)
                if traces.is_recording():
                    self._set_span_attributes(span, scope, path, context, response.status)

    def _count_use(self, scope: Scope, context: RequestContext) -> None:
        caller, operation = context.caller, context.operation
        if caller is not None and caller.api_key_id is not None and operation is not None:
            name = operation.operation_id
            sent = operation.parameters.find_sent(scope["query_string"], scope["headers"])
            parameters = [Part(name, PartKind.PARAMETER, parameter) for parameter in sent]
            used = [Part(name, PartKind.OPERATION, ""), *parameters, *context.used_properties]
            self.count_use(caller.api_key_id, used)

    def _log(self, scope: Scope, path: str, context: RequestContext, status: int, seconds: float) -> None:
        method, milliseconds = scope["method"], round(seconds * 1000, 1)
        log_context = current_log_context()
        reason = " ".join(filter(None, (log_context.problem, log_context.limit))) if log_context else ""
        access_log.info(
            "%s %s %s %sms%s",
            method,
            path,
            status,
            milliseconds,
            f" {reason}" if reason else "",
            extra={
                "request_id": context.request_id,
                "method": method,
                "path": self.base_path + context.operation.path if context.operation else path,
                "status": status,
                "duration_ms": milliseconds,
                "address": (scope.get("client") or (None,))[0],
            },
        )

    def _set_span_attributes(
        self, span: traces.RecordedSpan, scope: Scope, path: str, context: RequestContext, status: int
    ) -> None:
        """Set OpenTelemetry's attributes for HTTP, except the query, which may hold secrets."""
        attributes: dict[str, str | int] = {
            # Clients choose the method, so unknown ones would be unbounded values.
            "http.request.method": scope["method"] if scope["method"] in metrics.METHODS else "_OTHER",
            "url.path": path,
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
            "sartiq.request_id": context.request_id,
        }
        if context.operation:
            span.update_name(context.operation.operation_id)
            attributes["http.route"] = self.base_path + context.operation.path
        if status:
            attributes["http.response.status_code"] = status
        span.set_attributes(attributes)
        if status >= 500:
            traces.mark_failed(span, str(status))


class _ResponseRecorder:
    """An ASGI `send` that records the status and the start time of the response."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.started_at: float | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.started_at = message["status"], time.perf_counter()
        await self._send(message)


def _record_problem(log_context: LogContext, status: int) -> None:
    """Count a response above 399 by its problem; forget a problem that another response has replaced."""
    if status > 399:
        log_context.problem = log_context.problem or NO_PROBLEM
        metrics.count_problem(status, log_context.problem, log_context.limit)
    else:
        log_context.problem = log_context.limit = None


@contextmanager
def request_caller_context(caller: Caller, permission: str | None) -> Iterator[Caller]:
    """Act as `caller` within the block, and log the organization whose rows are accessed there."""
    with caller_context(caller, permission):
        try:
            yield caller
        finally:
            log_context, organization_id = current_log_context(), current_organization()
            if log_context is not None and organization_id is not None:
                log_context.organization_id = str(organization_id)


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


def _redact_path(path: str, context: RequestContext) -> str:
    """Return the path for the log: ids stay; tokens and e-mail addresses become the parameter's name."""
    if context.operation is None:
        return "/".join(_redact_segment(segment) for segment in path[:MAX_PATH_LENGTH].split("/"))
    redacted = path
    for name, value in context.path_values.items():
        if not _UUID.fullmatch(value):
            redacted = redacted.replace(f"/{value}", f"/{{{name}}}")
    return quote(redacted, safe="/{}")


def _redact_segment(segment: str) -> str:
    # A path that matches no operation may contain anything, such as a token or an address.
    return segment if _NAME.fullmatch(segment) or _UUID.fullmatch(segment) else "*"
