"""Long polling (`Prefer: wait=N`, RFC 7240) and server-sent events of generations.

A waiting client occupies neither a thread nor a database connection: the handler has authorized the request
and returned, and its transaction has ended. When the state changes or the time is up, the request is
dispatched again inside the process, so that the token and the permissions of that moment apply. An event
stream sends each change of a generation as an event. This module reads no rows:
`studio.infrastructure.change_hub` does.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.common.responses import encode_json
from handlers.contract.errors import ResponseViolation, ServiceUnavailable
from handlers.contract.operations import Operation
from handlers.contract.request_bodies import ClientDisconnected
from handlers.contract.responses import EVENT_STREAM
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.disconnects import run_until_disconnected
from handlers.pipeline.errors import build_problem
from handlers.pipeline.prefer import parse_prefer
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from handlers.pipeline.unknown_values import is_defect
from studio.generations.watch import GenerationState
from studio.infrastructure.change_hub import ChangeHub, Listener, Watched

HEARTBEAT_SECONDS = 15.0
"""Interval of a stream's heartbeats, and of the checks that the caller is still authorized."""
HEARTBEAT = b":\n"
"""A comment without an empty line after it, which every client ignores.

An empty line ends an event. Some clients (httpx-sse, fetch-event-source) then deliver an event without data.
"""
RETRY_MILLISECONDS = 2_000
"""The reconnection time that a stream announces."""

_WAIT = re.compile(r"""wait\s*=\s*(?:([0-9]+)|"([0-9]+)")\s*(?:;.*)?""", re.ASCII | re.IGNORECASE | re.DOTALL)
# Headers of a POST that the GET which follows from it also sends.
_FORWARDED_HEADERS = frozenset({b"authorization", b"accept", b"traceparent", b"tracestate"})
# Headers of the GET's response that replace those of the POST's response.
_REPLACED_HEADERS = frozenset({b"content-length", b"retry-after"})


def find_preferred_wait(headers: Headers, max_seconds: int) -> int | None:
    """Return the seconds that a request prefers to wait, at most `max_seconds`.

    Returns None if the preference is absent or malformed. The first of several `wait` preferences wins
    (RFC 7240, section 2).
    """
    match = _WAIT.fullmatch(parse_prefer(headers).get("wait", ""))
    # Nine digits are enough for the comparison and keep `int` cheap for a header full of digits.
    return min(int((match[1] or match[2])[:9]), max_seconds) if match else None


@dataclass
class _BufferedResponse:
    """An ASGI `send` that buffers a response that can wait, and passes on any other response.

    Without a `send` it buffers every response.
    """

    context: RequestContext
    send: Send | None
    start: Message = field(default_factory=dict)
    """The first message of the response; empty if nothing is buffered."""
    body: bytes = b""

    async def __call__(self, message: Message) -> None:
        """Pass on or buffer one message."""
        if self.send is not None and self.context.watched is None:
            await self.send(message)
        elif message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")

    @property
    def status(self) -> int:
        """The status, 0 if nothing is buffered."""
        return self.start.get("status", 0)

    def header(self, name: bytes) -> bytes:
        """Return a header of the response, empty if it is absent."""
        return dict(self.start.get("headers", ())).get(name, b"")


@dataclass
class _Request:
    """A request whose response is buffered; `scope` is a copy from before the inner middleware changed it."""

    scope: Scope
    receive: Receive
    send: Send
    context: RequestContext
    operation: Operation
    state: Watched
    """The state as the handler read it."""
    buffered: _BufferedResponse
    headers: Headers = field(init=False)

    def __post_init__(self) -> None:
        self.headers = Headers(raw=self.scope["headers"])

    @property
    def caller_id(self) -> str:
        """The id of the user; an API key counts for its user."""
        return str(self.context.caller.user_id if self.context.caller else None)

    async def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a complete response, which `response_validation` validates because it was changed here."""
        self.context.is_validated = False
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class LongPolling:
    """Delay responses, or stream those about generations.

    Args:
        change_hub: reports the changes of states.
        max_wait: the longest wait, in seconds.
        max_stream: the longest stream, in seconds.
    """

    def __init__(self, app: ASGIApp, *, change_hub: ChangeHub, max_wait: int, max_stream: int) -> None:
        self.app = app
        self.change_hub = change_hub
        self.max_wait = max_wait
        self.max_stream = max_stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; exceptions are raised before the response starts."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        original_scope = {**scope, "extensions": dict(scope["extensions"])}
        context: RequestContext = scope[REQUEST_CONTEXT]
        buffered = _BufferedResponse(context, send)
        await self.app(scope, receive, buffered)
        if context.operation is None or context.watched is None:
            return  # The response was passed on.
        request = _Request(
            original_scope, receive, send, context, context.operation, context.watched, buffered
        )
        is_stream = buffered.header(b"content-type").startswith(EVENT_STREAM.encode())
        if is_stream and isinstance(context.watched, GenerationState):
            await self._stream(request, context.watched)
        else:
            await self._wait(request)

    async def _wait(self, request: _Request) -> None:
        response, state = request.buffered, request.state
        seconds = find_preferred_wait(request.headers, self.max_wait)
        can_wait = self.change_hub.is_open and self.change_hub.has_capacity(request.caller_id)
        if seconds is None or not (can_wait or state.is_final):
            await request.send(response.start)
            await request.send({"type": "http.response.body", "body": response.body})
            return
        # If-None-Match: a client with an outdated copy gets the new one at once; one with the current copy
        # waits for any change. Without the header, a client waits for the final state.
        has_changed = "if-none-match" in request.headers and response.status != 304
        if seconds and not state.is_final and not has_changed:
            started_at = time.monotonic()
            final_only = response.status != 304
            with self.change_hub.subscribe(state, request.caller_id, final_only) as listener:
                try:
                    await run_until_disconnected(request.receive, listener.wait(seconds))
                except ClientDisconnected:
                    return
            request.context.wait_seconds = time.monotonic() - started_at
            response = await self._refetch(request)
        applied = (b"preference-applied", f"wait={round(request.context.wait_seconds)}".encode())
        await request.respond(response.status, [*response.start["headers"], applied], response.body)

    async def _refetch(self, request: _Request) -> _BufferedResponse:
        """Return the current response: an error replaces that of a GET, but never that of a POST."""
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
            current = await self._dispatch(request, scope)
        except Exception as error:  # noqa: BLE001 - the generation was accepted, even if reading it fails now
            build_problem(error)  # logs a defect
            return request.buffered
        kept = [pair for pair in request.buffered.start["headers"] if pair[0] not in _REPLACED_HEADERS]
        replaced = [pair for pair in current.start["headers"] if pair[0] in _REPLACED_HEADERS]
        start = {**request.buffered.start, "headers": kept + replaced}
        return _BufferedResponse(request.context, None, start, current.body)

    async def _dispatch(self, request: _Request, scope: Scope) -> _BufferedResponse:
        """Send a request through the inner middleware again, with the caller's own credential."""
        # The rate limits that have counted the request do not count it again.
        context = RequestContext(
            request.context.request_id, limit_usages=list(request.context.limit_usages), is_repeated=True
        )
        buffered = _BufferedResponse(context, None)
        request.context.is_validated = False
        await self.app(
            {**scope, REQUEST_CONTEXT: context, "extensions": dict(scope["extensions"])},
            _receive_nothing,
            buffered,
        )
        return buffered

    async def _stream(self, request: _Request, state: GenerationState) -> None:
        is_known = request.headers.get("last-event-id") == str(state.revision)
        if is_known and state.is_final:
            # 204 tells an EventSource not to reconnect.
            await request.respond(204, [], b"")
            return
        if self.change_hub.is_open and not self.change_hub.has_capacity(request.caller_id):
            request.context.is_validated = False
            raise ServiceUnavailable(Limit.LONG_POLL)
        # No empty line: like that of a heartbeat, it would be an event without data for some clients.
        first_chunk = b"retry: %d\n" % RETRY_MILLISECONDS
        if not is_known:
            first_chunk += _encode_event(request.operation, state, "status")
        headers = [pair for pair in request.buffered.start["headers"] if pair[0] != b"content-length"]
        await request.send({**request.buffered.start, "headers": headers})
        if self.change_hub.is_open and not state.is_final and request.scope["method"] != "HEAD":
            with (
                self.change_hub.subscribe(state, request.caller_id) as listener,
                suppress(ClientDisconnected),
            ):
                await run_until_disconnected(
                    request.receive, self._send_events(request, state, listener, first_chunk)
                )
            first_chunk = b""
        await request.send({"type": "http.response.body", "body": first_chunk})

    async def _send_events(
        self,
        request: _Request,
        last_state: GenerationState,
        listener: Listener[GenerationState],
        first_chunk: bytes,
    ) -> None:
        """Send events until the generation or the time ends, or the caller is no longer authorized."""
        await _send_chunk(request.send, first_chunk)
        sent_at = authorized_at = time.monotonic()
        ends_at = authorized_at + self.max_stream
        while not last_state.is_final:
            wake_at = min(sent_at, authorized_at) + HEARTBEAT_SECONDS
            await listener.wait(min(wake_at, ends_at) - time.monotonic())
            state, now = listener.state, time.monotonic()
            if state is None or listener.closed or now >= ends_at:
                return
            # Not for each progress event: there are many, and a dispatch costs a message to PostgreSQL.
            if state.status != last_state.status or now >= authorized_at + HEARTBEAT_SECONDS:
                if not await self._is_still_authorized(request):
                    return
                authorized_at = time.monotonic()
            if state.revision != last_state.revision:
                name = "progress" if state.status == last_state.status else "status"
                try:
                    chunk = _encode_event(request.operation, state, name)
                except ResponseViolation as error:
                    build_problem(error)  # logs and counts the defect
                    return
            elif now >= sent_at + HEARTBEAT_SECONDS:
                chunk = HEARTBEAT
            else:
                continue
            await _send_chunk(request.send, chunk)
            last_state, sent_at = state, time.monotonic()

    async def _is_still_authorized(self, request: _Request) -> bool:
        try:
            return (await self._dispatch(request, request.scope)).status == 200
        except Exception as error:  # noqa: BLE001 - the stream ends and the client reconnects
            build_problem(error)  # logs a defect
            return False


def _encode_event(operation: Operation, state: GenerationState, name: str) -> bytes:
    """Return one server-sent event.

    Raises:
        ResponseViolation: the event does not match the contract.
    """
    raw = encode_json(state)
    event = {"event": name, "id": str(state.revision), "data": raw.decode()}
    mismatch = operation.responses.find_event_mismatch(200, event, raw)
    if mismatch is not None and is_defect(operation.operation_id, mismatch):
        message = f"event of revision {state.revision}: {mismatch}"
        raise ResponseViolation(operation.operation_id, mismatch.kind, message)
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name.encode(), state.revision, raw)


async def _send_chunk(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _receive_nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
