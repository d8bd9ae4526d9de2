"""Send requests to an ASGI application in process, with full control over the bytes."""

from __future__ import annotations

import asyncio
import atexit
import json
import threading
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit


def drop_rate_limit_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers of a response without the RateLimit fields, which change with each request."""
    return {name: value for name, value in headers.items() if not name.startswith("ratelimit")}


@dataclass(frozen=True)
class ClientResponse:
    """A response as the application sent it. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def error_types(self) -> dict[tuple[Any, ...], str]:
        """The violations of a 422 response: `loc` to `type`."""
        return {tuple(violation["loc"]): violation["type"] for violation in self.json()["detail"]}


def status_and_code(response: ClientResponse) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    return response.status, response.json()["code"]


def assert_conflict(response: ClientResponse, code: str) -> None:
    """Assert that the response is 409 with this code."""
    assert (response.status, response.json()["code"]) == (409, code), response.body


def describe_response(response: ClientResponse) -> str:
    """Describe a response for the message of a failed assertion."""
    return f"{response.status} {response.body[:600]!r}"


def url_path(url: str) -> str:
    """Return the path and query of a URL of the API, as clients of tests take it."""
    parts = urlsplit(url)
    return parts.path.removeprefix("/api/v1") + (f"?{parts.query}" if parts.query else "")


def new_item(**body: Any) -> dict[str, Any]:
    """Return an entry of a batch that creates a resource."""
    return {"action": "create", "body": {"name": "Shirt", **body}}


def send_request(
    app: Any,
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    body: bytes | Iterable[bytes] | None = None,
    as_json: Any = None,
    stalls: bool = False,
) -> ClientResponse:
    """Send one request and return the response.

    Args:
        app: The ASGI application.
        method: The method.
        target: The path with the query.
        headers: The headers.
        body: The body. Several pieces are sent chunked, without a Content-Length.
        as_json: A value to send as JSON, instead of `body`.
        stalls: Whether the client sends the whole body but never ends the request.
    """
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    if as_json is not None:
        body = json.dumps(as_json).encode()
        sent.setdefault("content-type", "application/json")
    pieces = [] if body is None else [body] if isinstance(body, bytes) else list(body)
    if isinstance(body, bytes):
        sent.setdefault("content-length", str(len(body)))
    elif body is not None:
        sent["transfer-encoding"] = "chunked"
    messages = [
        {"type": "http.request", "body": piece, "more_body": stalls or number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ] or [{"type": "http.request", "body": b"", "more_body": False}]
    return _run(_run_request(app, build_scope(method, target, sent), messages, stalls))


def _run(request: Coroutine[Any, Any, ClientResponse]) -> ClientResponse:
    """Run a request like `asyncio.run`, but keep the event loop of the main thread for the next request."""
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(request)
    loop = _event_loop()
    try:
        return loop.run_until_complete(request)
    finally:
        # What a request left running must not run in the next one.
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def build_scope(method: str, target: str, headers: dict[str, str]) -> dict[str, Any]:
    """Return the ASGI scope of a request. The header names must be lower case."""
    path, _, query = target.partition("?")
    return {
        "type": "http", "http_version": "1.1", "asgi": {"version": "3.0"}, "scheme": "http", "root_path": "",
        "method": method, "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 5), "server": ("localhost", 8000),
    }  # fmt: skip


async def _run_request(
    app: Any, scope: dict[str, Any], messages: list[dict[str, Any]], stalls: bool
) -> ClientResponse:
    pending = iter(messages if stalls else [*messages, {"type": "http.disconnect"}])
    received: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        message = next(pending, None)
        return message if message is not None else await asyncio.Event().wait()

    async def send(message: dict[str, Any]) -> None:
        received.append(message)

    await app(scope, receive, send)
    assert [message["type"] for message in received].count("http.response.start") == 1
    headers: dict[str, str] = {}
    for name, value in ((name.decode(), value.decode("latin-1")) for name, value in received[0]["headers"]):
        # Repeated fields are one comma-separated list (RFC 9110, section 5.2).
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return ClientResponse(
        received[0]["status"], headers, b"".join(message.get("body", b"") for message in received[1:])
    )
