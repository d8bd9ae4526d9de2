"""What the server takes for HTTP/1.1: uvicorn's fast parser, made to keep the house's promises.

The parser knows a fixed list of methods, collects headers until memory ends and refuses in plain text. Here
every method reaches the application, request heads are bounded, and a refusal is a problem like any other.
"""

from __future__ import annotations

import logging
import re
import secrets
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handlers.errors import MEDIA_TYPE, Problem
from studio.telemetry.context import Work, begin_work

logger = logging.getLogger(__name__)

LARGEST_HEAD_BYTES = 65_536

_METHOD = re.compile(rb"(?:\r?\n)*([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ")
# The methods that are handed to the parser as they are. It knows others too, but an application that answers
# all of them with 405 need not care, and CONNECT it would take for the end of HTTP on this connection.
_PLAIN = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"})
_STAND_IN = b"SOURCE"
"""What the parser reads instead of a method that it may not know; framing does not depend on it."""


class Protocol(HttpToolsProtocol):
    """One connection. `public_url` is where problems are explained."""

    def __init__(self, *arguments: Any, public_url: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._public_url = public_url
        self._head_bytes = 0
        self._head_is_complete = False
        self._is_between_messages = True
        self._method: bytes | None = None

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client as they come."""
        # A client that splits its first line just here, or pipelines, gets the parser's own refusal.
        match = _METHOD.match(data) if self._is_between_messages else None
        if match is not None and match[1] not in _PLAIN:
            self._method = match[1]
            data = _STAND_IN + data[match.end(1) :]
        super().data_received(data)
        if self._head_is_complete or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > LARGEST_HEAD_BYTES:
            self.send_400_response("The request head is too large")

    def on_message_begin(self) -> None:
        """Begin to count the head of a request."""
        self._head_bytes, self._head_is_complete, self._is_between_messages = 0, False, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the request to the application, by the method that the client sent."""
        self._head_is_complete = True
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
        request_id = secrets.token_hex(10)
        begin_work(Work(request_id=request_id))
        logger.info("refused what is no HTTP: %s", msg)
        problem = Problem(HTTPStatus.BAD_REQUEST, "malformed_request", msg)
        body = problem.to_bytes(self._public_url)
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"cache-control: no-store\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
