"""Extend uvicorn's httptools protocol with limits for request heads and slow clients, and with problems.

The parser of uvicorn rejects unknown methods, collects headers without a limit, waits for them without a
timeout and rejects requests in plain text. Here each method reaches the application, which returns 405;
connections are limited in number, request heads in size and time, idle connections are closed, and errors
are problem documents (RFC 9457). Header fields that a proxy and an application may read differently are
dropped or rejected.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handlers.contract.errors import RequestTimeout
from handlers.pipeline.admission.connections import Admission, ConnectionLimits
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.errors import MEDIA_TYPE, Problem
from handlers.pipeline.middleware.routing import REJECTED_CONNECTION
from studio.infrastructure.telemetry.context import LogContext, set_log_context
from studio.infrastructure.telemetry.metrics import count_problem

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 100
IDLE_SECONDS = 5
"""How long a new connection, or one between two requests, stays open without a byte from the client."""
LAST_REQUEST_SECONDS = 1
"""How long a new connection waits for its first byte while the server shuts down."""
HEAD_TOO_LARGE = "The request head is too large"
HOST_REQUIRED = "An HTTP/1.1 request must have exactly one Host header field"

_METHOD = re.compile(rb"(?:\r?\n)*([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ")
# The methods that the parser sees. It knows others too, but the application returns 405 for all of them, and
# after CONNECT the parser would stop reading HTTP on the connection.
_PASSTHROUGH_METHODS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"}
)
_PLACEHOLDER_METHOD = b"SOURCE"
"""What the parser sees instead of another method. Message framing does not depend on the method."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """An HTTP/1.1 connection.

    Args:
        public_url: The base of the URLs of problem types.
        idle_timeout: How many seconds the server waits for a request head, or for the client to read.
        connection_limits: Counts the connections of the process.
    """

    def __init__(
        self,
        *arguments: Any,
        public_url: str,
        idle_timeout: float,
        connection_limits: ConnectionLimits,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._public_url = public_url
        self._connection_limits = connection_limits
        self._admission = Admission.SERVED
        self._peer: str | None = None
        self._is_silent = True
        self._is_last_request = False
        self._idle_timeout = idle_timeout
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_bytes = self._header_bytes = self._header_count = self._host_count = 0
        self._detail = ""
        self._head_is_complete = False
        self._is_between_messages = True
        self._method: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Count the connection, and start the timeout for the first request."""
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else None
        self._admission = self._connection_limits.admit(self._peer)
        if self._admission is Admission.CLOSED:
            transport.abort()
        else:
            self._start_request_timer(min(IDLE_SECONDS, self._idle_timeout))

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers, and count the end of the connection."""
        self._connection_limits.release(self._peer)
        _cancel(self._request_timer)
        _cancel(self._write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed received bytes to the parser, with a placeholder for a method that it may not know."""
        if self._is_silent:
            self._is_silent = False
            self._start_request_timer(self._idle_timeout)
        # If the method is split between packets or the request is pipelined, the parser rejects it.
        match = _METHOD.match(data) if self._is_between_messages else None
        if match is not None and match[1] not in _PASSTHROUGH_METHODS:
            self._method = match[1]
            data = _PLACEHOLDER_METHOD + data[match.end(1) :]
        super().data_received(data)
        if self._head_is_complete or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._reject(HTTPStatus.BAD_REQUEST, "malformed_request", HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Reset the size of the request head."""
        self._head_bytes = self._header_bytes = self._header_count = self._host_count = 0
        self._head_is_complete = self._is_between_messages = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; raise ValueError, which stops the parser, if the head is too large."""
        self._header_bytes += len(name) + len(value)
        self._header_count += 1
        if self._header_bytes + len(self.url) > MAX_HEAD_BYTES or self._header_count > MAX_HEADERS:
            self._detail = HEAD_TOO_LARGE
            raise ValueError(HEAD_TOO_LARGE)
        # Trailers of a chunked body arrive here too, after the head was checked (RFC 9110, section 6.5.1).
        if self._head_is_complete:
            return
        self._host_count += name.lower() == b"host"
        # WSGI and CGI give `X_Forwarded_For` and `X-Forwarded-For` one name, and a proxy removes only the
        # second one. nginx and gunicorn drop such fields too.
        if b"_" not in name:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application with the method that the client sent.

        Raises:
            ValueError: The request has no Host or several (RFC 9112, section 3.2). It stops the parser.
        """
        if self._host_count > 1 or (self._host_count == 0 and self.parser.get_http_version() != "1.0"):
            self._detail = HOST_REQUIRED
            raise ValueError(HOST_REQUIRED)
        self._head_is_complete = True
        _cancel(self._request_timer)
        super().on_headers_complete()
        if self._method is not None:
            # The application starts in the next iteration of the event loop, so it sees this method.
            self.scope["method"], self._method = self._method.decode("ascii"), None
        if self._admission is not Admission.SERVED:
            # The application rejects the request, unless it is a probe.
            rejection: dict[object, object] = {
                "limit": Limit.CONNECTIONS,
                "detail": self._admission.value,
                "serves_probes": True,
            }
            self.scope["extensions"] = {REJECTED_CONNECTION: rejection}
        if self._is_last_request or self._admission is not Admission.SERVED:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection after the request that runs or arrives, at once if there is none.

        The first request of a new connection is served: the client has sent it to a server that listened.
        """
        has_no_request = self.cycle is None or self.cycle.response_complete
        if has_no_request and (self._is_silent or not self._is_between_messages):
            self._is_last_request = True
            if self._is_silent:
                self._start_request_timer(min(LAST_REQUEST_SECONDS, self._idle_timeout))
            return
        super().shutdown()

    def on_message_complete(self) -> None:
        """Expect the next request."""
        self._is_between_messages = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Respond to a malformed request and close the connection."""
        self._reject(HTTPStatus.BAD_REQUEST, "malformed_request", self._detail or msg)

    def on_response_complete(self) -> None:
        """Start the timeout for the next request, or for the rest of the body of this one."""
        super().on_response_complete()
        self._start_request_timer(self._idle_timeout)

    def pause_writing(self) -> None:
        """Start the timeout for the client to read the response."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._idle_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel that timeout: the client reads."""
        _cancel(self._write_timer)
        super().resume_writing()

    def _start_request_timer(self, seconds: float) -> None:
        _cancel(self._request_timer)
        self._request_timer = self.loop.call_later(seconds, self._on_timeout)

    def _on_timeout(self) -> None:
        is_serving = self.cycle is not None and not self.cycle.response_complete
        if self.transport.is_closing() or is_serving:
            return
        if self._is_between_messages or self._head_is_complete:
            self.transport.close()
        else:
            detail = "The request head did not arrive in time"
            self._reject(HTTPStatus.REQUEST_TIMEOUT, RequestTimeout.code, detail)

    def _reject(self, status: HTTPStatus, code: str, detail: str) -> None:
        request_id = secrets.token_hex(10)
        set_log_context(LogContext(request_id=request_id, problem=code))
        logger.info("request rejected by the HTTP protocol: %s %s: %s", status.value, code, detail)
        count_problem(status, code, None)
        problem = Problem(status, code, detail)
        body = problem.to_bytes(self._public_url)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
