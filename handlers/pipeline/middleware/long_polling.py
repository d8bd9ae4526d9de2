"""Waits and streams in front of the WSGI bridge, where neither costs a thread or a database connection.

The handler has let the caller in and answered; its transaction is over. Who prefers to wait
(`Prefer: wait=N`, RFC 7240) is held until the generation is over, or has changed. Then the question is asked
again inside the process, so that the token and the permissions of that moment count. A stream sends every
change as an event.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.common.responses import encode_json
from handlers.contract.errors import ResponseViolation, ServiceUnavailable
from handlers.contract.operations import Operation
from handlers.contract.responses import EVENT_STREAM
from handlers.pipeline.errors import build_problem
from handlers.pipeline.prefer import parse_prefer
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.generations.watch import ChangeHub, GenerationState, Listener

HEARTBEAT_SECONDS = 15.0
"""After so much silence a stream shows that it lives; after so long it asks again whether it still may."""
RETRY_MILLISECONDS = 2_000

_WAIT = re.compile(r"""wait\s*=\s*(?:([0-9]+)|"([0-9]+)")\s*(?:;.*)?""", re.ASCII | re.IGNORECASE | re.DOTALL)
# What a question that follows from a POST takes over from it.
_FORWARDED_HEADERS = frozenset({b"authorization", b"accept", b"traceparent", b"tracestate"})
_REPLACED_HEADERS = frozenset({b"content-length", b"retry-after"})


def find_preferred_wait(headers: Headers, max_seconds: int) -> int | None:
    """Return for how many seconds a request prefers to wait, None when it does not or says it wrongly.

    Of several `wait` the first counts (RFC 7240, 2).
    """
    found = _WAIT.fullmatch(parse_prefer(headers).get("wait", ""))
    return min(int((found[1] or found[2])[:9]), max_seconds) if found else None


@dataclass
class _BufferedResponse:
    """Passes an answer on, or holds it back when it may be waited with; without `send` it holds any."""

    call: RequestContext
    send: Send | None
    start: Message = field(default_factory=dict)
    """How the answer begins; empty when nothing is held."""
    body: bytes = b""

    async def __call__(self, message: Message) -> None:
        """Take one message of the answer."""
        if self.send is not None and self.call.watched_generation is None:
            await self.send(message)
        elif message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")

    @property
    def status(self) -> int:
        """The status, 0 when nothing is held."""
        return self.start.get("status", 0)

    def header(self, name: bytes) -> bytes:
        """Return a header, empty when there is none."""
        return dict(self.start.get("headers", ())).get(name, b"")


@dataclass
class _Request:
    """A request whose answer is held; `scope` is as it came in, before anything was found out about it."""

    scope: Scope
    receive: Receive
    send: Send
    call: RequestContext
    operation: Operation
    state: GenerationState
    """The generation as the handler saw it."""
    buffered: _BufferedResponse
    headers: Headers = field(init=False)

    def __post_init__(self) -> None:
        self.headers = Headers(raw=self.scope["headers"])

    @property
    def caller_id(self) -> str:
        """Who is asking: an account, or an API key."""
        claims = self.call.claims or {}
        return str(claims.get("sub") or claims.get("api_key_id"))

    async def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send an answer in one piece. The envelope holds it against the contract, since we touched it."""
        self.call.is_validated = False
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class LongPolling:
    """Stands around gate, security and check, and inside of what makes problems of errors."""

    def __init__(self, app: ASGIApp, *, change_hub: ChangeHub, max_wait: int, max_stream: int) -> None:
        self.app = app
        self.change_hub = change_hub
        self.max_wait = max_wait
        self.max_stream = max_stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what is raised is raised before anything was sent."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        untouched = {**scope, "extensions": dict(scope["extensions"])}
        call: RequestContext = scope[REQUEST_CONTEXT]
        held = _BufferedResponse(call, send)
        await self.app(scope, receive, held)
        if call.operation is None or call.watched_generation is None:
            return  # Nothing that could be waited with: the answer is sent.
        request = _Request(untouched, receive, send, call, call.operation, call.watched_generation, held)
        if held.header(b"content-type").startswith(EVENT_STREAM.encode()):
            await self._stream(request)
        else:
            await self._wait(request)

    async def _wait(self, request: _Request) -> None:
        held, state = request.buffered, request.state
        seconds = find_preferred_wait(request.headers, self.max_wait)
        can_wait = self.change_hub.is_open and self.change_hub.has_capacity(request.caller_id)
        if seconds is None or not (can_wait or state.is_final):
            await request.send(held.start)
            await request.send({"type": "http.response.body", "body": held.body})
            return
        # Who has an old copy wants the new one and not the end.
        is_news = "if-none-match" in request.headers and held.status != 304
        if seconds and not state.is_final and not is_news:
            began = time.monotonic()
            to_the_end = held.status != 304
            with self.change_hub.subscribe(state, request.caller_id, to_the_end) as watcher:
                if not await _until_disconnected(request.receive, watcher.wait(seconds)):
                    return
            request.call.wait_seconds = time.monotonic() - began
            held = await self._refetch(request)
        applied = (b"preference-applied", f"wait={round(request.call.wait_seconds)}".encode())
        await request.respond(held.status, [*held.start["headers"], applied], held.body)

    async def _refetch(self, request: _Request) -> _BufferedResponse:
        """Return the answer of now; a GET's errors are raised, what a POST was promised stays promised."""
        if request.scope["method"] in ("GET", "HEAD"):
            return await self._dispatch(request, request.scope)
        location = request.buffered.header(b"location")
        scope = {
            **request.scope,
            "method": "GET",
            "path": location.decode("ascii"),
            "raw_path": location,
            "query_string": b"",
            "headers": [pair for pair in request.scope["headers"] if pair[0] in _FORWARDED_HEADERS],
        }
        try:
            now = await self._dispatch(request, scope)
        except Exception as error:  # noqa: BLE001 - the work was accepted, whatever became of the caller since
            build_problem(error)
            return request.buffered
        lasting = [pair for pair in request.buffered.start["headers"] if pair[0] not in _REPLACED_HEADERS]
        newest = [pair for pair in now.start["headers"] if pair[0] in _REPLACED_HEADERS]
        start = {**request.buffered.start, "headers": lasting + newest}
        return _BufferedResponse(request.call, None, start, now.body)

    async def _dispatch(self, request: _Request, scope: Scope) -> _BufferedResponse:
        """Let a request come in once more, as whoever sent it."""
        # What has counted the request once does not count it again.
        call = RequestContext(request.call.request_id, limit_usages=list(request.call.limit_usages))
        held = _BufferedResponse(call, None)
        request.call.is_validated = False
        await self.app(
            {**scope, REQUEST_CONTEXT: call, "extensions": dict(scope["extensions"])}, _receive_nothing, held
        )
        return held

    async def _stream(self, request: _Request) -> None:
        state = request.state
        known = request.headers.get("last-event-id") == str(state.revision)
        if known and state.is_final:
            await request.respond(204, [], b"")
            return
        if self.change_hub.is_open and not self.change_hub.has_capacity(request.caller_id):
            request.call.is_validated = False
            raise ServiceUnavailable()
        first = b"retry: %d\n" % RETRY_MILLISECONDS
        first += b"\n" if known else _encode_event(request.operation, state, "status")
        headers = [pair for pair in request.buffered.start["headers"] if pair[0] != b"content-length"]
        await request.send({**request.buffered.start, "headers": headers})
        goes_on = self.change_hub.is_open and not state.is_final and request.scope["method"] != "HEAD"
        if goes_on:
            with self.change_hub.subscribe(state, request.caller_id) as watcher:
                await _until_disconnected(request.receive, self._send_events(request, watcher, first))
            first = b""
        await request.send({"type": "http.response.body", "body": first})

    async def _send_events(self, request: _Request, watcher: Listener, first: bytes) -> None:
        """Send what is told until it is over, too long, or none of the caller's business any more."""
        await _send_chunk(request.send, first)
        last, asked_at = request.state, time.monotonic()
        spoke_at, ends_at = asked_at, asked_at + self.max_stream
        while not last.is_final:
            beat_at = min(spoke_at, asked_at) + HEARTBEAT_SECONDS
            await watcher.wait(min(beat_at, ends_at) - time.monotonic())
            state, now = watcher.state, time.monotonic()
            if state is None or watcher.closed or now >= ends_at:
                return
            if state.status != last.status or now >= asked_at + HEARTBEAT_SECONDS:
                if not await self._is_still_authorized(request):
                    return
                asked_at = time.monotonic()
            if state.revision != last.revision:
                name = "progress" if state.status == last.status else "status"
                try:
                    message = _encode_event(request.operation, state, name)
                except ResponseViolation as error:
                    build_problem(error)
                    return
            elif now >= spoke_at + HEARTBEAT_SECONDS:
                message = b":\n\n"
            else:
                continue
            await _send_chunk(request.send, message)
            last, spoke_at = state, time.monotonic()

    async def _is_still_authorized(self, request: _Request) -> bool:
        try:
            return (await self._dispatch(request, request.scope)).status == 200
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream ends and the client comes again
            build_problem(error)
            return False


def _encode_event(operation: Operation, state: GenerationState, name: str) -> bytes:
    """Return one server-sent event; ContractBroken when its data is not what the contract says."""
    raw = encode_json(state)
    told = {"event": name, "id": str(state.revision), "data": raw.decode()}
    violation = operation.responses.find_event_mismatch(200, told, raw)
    if violation is not None:
        words = f"was to send event {state.revision}: {violation}"
        raise ResponseViolation(operation.operation_id, violation.kind, words)
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name.encode(), state.revision, raw)


async def _send_chunk(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_disconnected(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work as long as the client is there; return whether it was there to the end."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
        return working.done()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _receive_nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
