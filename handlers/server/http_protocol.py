"""What the server takes for HTTP/1.1: uvicorn's fast parser, made to keep the house's promises.

The parser knows a fixed list of methods, collects headers until memory ends, waits for them for ever and
refuses in plain text. Here every method reaches the application, request heads are bounded in size and time,
nobody holds a connection without using it, and a refusal is a problem like any other.
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
from handlers.pipeline.errors import MEDIA_TYPE, Problem
from studio.telemetry.context import LogContext, set_log_context

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 100
HEAD_TOO_LARGE = "The request head is too large"

_METHOD = re.compile(rb"(?:\r?\n)*([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ")
# The methods that are handed to the parser as they are. It knows others too, but an application that answers
# all of them with 405 need not care, and CONNECT it would take for the end of HTTP on this connection.
_PASSTHROUGH_METHODS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"}
)
_PLACEHOLDER_METHOD = b"SOURCE"
"""What the parser reads instead of a method that it may not know; framing does not depend on it."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. `public_url` is where problems are explained.

    `patience` is for how many seconds a client may keep us waiting for a request, or for room to answer in.
    """

    def __init__(self, *arguments: Any, public_url: str, idle_timeout: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._public_url = public_url
        self._idle_timeout = idle_timeout
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_bytes = self._header_bytes = 0
        self._detail = ""
        self._head_is_complete = False
        self._is_between_messages = True
        self._method: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Greet a client, who is to send a request."""
        super().connection_made(transport)
        self._start_request_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        _cancel(self._request_timer)
        _cancel(self._write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client as they come."""
        # A client that splits its first line just here, or pipelines, gets the parser's own refusal.
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
        """Begin to count the head of a request."""
        self._head_bytes, self._header_bytes = 0, 0
        self._head_is_complete = self._is_between_messages = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; more than a head may hold end the parser's work, also when they come all at once."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes + len(self.url) > MAX_HEAD_BYTES or len(self.headers) == MAX_HEADERS:
            self._detail = HEAD_TOO_LARGE
            raise ValueError(HEAD_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application, by the method that the client sent."""
        self._head_is_complete = True
        _cancel(self._request_timer)
        super().on_headers_complete()
        if self._method is not None:
            # The application starts in the next turn of the event loop and sees this.
            self.scope["method"], self._method = self._method.decode("ascii"), None

    def on_message_complete(self) -> None:
        """Expect the next request."""
        self._is_between_messages = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and close the connection."""
        self._reject(HTTPStatus.BAD_REQUEST, "malformed_request", self._detail or msg)

    def on_response_complete(self) -> None:
        """Expect the next request, or the rest of one that was answered before it had come."""
        super().on_response_complete()
        self._start_request_timer()

    def pause_writing(self) -> None:
        """Wait until the client has read what was sent, but not for ever."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._idle_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        _cancel(self._write_timer)
        super().resume_writing()

    def _start_request_timer(self) -> None:
        _cancel(self._request_timer)
        self._request_timer = self.loop.call_later(self._idle_timeout, self._on_timeout)

    def _on_timeout(self) -> None:
        is_at_work = self.cycle is not None and not self.cycle.response_complete
        if self.transport.is_closing() or is_at_work:
            return
        if self._is_between_messages or self._head_is_complete:
            self.transport.close()
        else:
            words = "The request head did not come in time"
            self._reject(HTTPStatus.REQUEST_TIMEOUT, RequestTimeout.code, words)

    def _reject(self, status: HTTPStatus, code: str, detail: str) -> None:
        request_id = secrets.token_hex(10)
        set_log_context(LogContext(request_id=request_id))
        logger.info("refused what is no HTTP: %s", detail)
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
