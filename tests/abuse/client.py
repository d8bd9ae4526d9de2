"""A small asynchronous HTTP/1.1 client, so that the load generator uses little of the CPU that it shares.

A connection sends one request at a time, counts the bytes of the response and keeps its body only on demand.
It can also send a body slowly, or nothing at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import httptools

DRIP_SECONDS = 0.1


@dataclass(frozen=True)
class Address:
    """A port of the loopback interface, and the address that a client connects from."""

    port: int
    source: str

    @property
    def host(self) -> str:
        """The value of the Host header field."""
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Payload:
    """The bytes of a request. Afterwards, `drip` is sent every `DRIP_SECONDS` until the response arrives."""

    wire: bytes
    drip: bytes = b""


@dataclass(frozen=True)
class Response:
    """The status of a response, and its body if the connection keeps bodies."""

    status: int
    body: bytes


class ConnectionEnded(ConnectionError):
    """The server closed the connection before the end of the response."""


def encode_request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """A connection to a server, with one request at a time."""

    def __init__(self, keeps_bodies: bool = False) -> None:
        self.is_closed = False
        self._keeps_bodies = keeps_bodies
        self._response: asyncio.Future[Response] | None = None
        self._body: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    @classmethod
    async def open(cls, address: Address, keeps_bodies: bool = False) -> Connection:
        """Open a connection from the source address."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: cls(keeps_bodies), "127.0.0.1", address.port, local_addr=(address.source, 0)
        )
        return connection

    async def send(self, payload: Payload) -> Response:
        """Send a request and return its response.

        Raises:
            ConnectionEnded: The server closed the connection.
        """
        if self.is_closed:
            raise ConnectionEnded
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(payload.wire)
        try:
            while payload.drip:
                done, _ = await asyncio.wait((self._response,), timeout=DRIP_SECONDS)
                if done:
                    break
                self._transport.write(payload.drip)
            return await self._response
        finally:
            self._response = None
            # The server still expects the rest of the body, so no other request can follow.
            if payload.drip:
                self.close()

    def close(self) -> None:
        """Close the connection."""
        self.is_closed = True
        self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._response is not None and not self._response.done():
            self._response.set_exception(ConnectionEnded())

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._body = []

    def on_body(self, body: bytes) -> None:
        if self._keeps_bodies:
            self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue
            return
        if not self._parser.should_keep_alive():
            self.close()
        if self._response is not None and not self._response.done():
            self._response.set_result(Response(status, b"".join(self._body)))
