"""Bridge from ASGI to Flask's WSGI with one thread hop per request, and stream files without Flask.

Connexion's own bridge switches between event loop and thread for every message, and its Flask side rebuilds
decorators on every request. This bridge passes a complete request to the thread and receives a complete
response. Of its 90 microseconds, most are Flask's contexts and Werkzeug's objects.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import anyio.to_thread
import flask
import starlette.exceptions
import werkzeug.exceptions
from connexion.apps.abstract import AbstractApp
from connexion.apps.flask import FlaskApi, FlaskApp, FlaskASGIApp
from starlette.types import Message, Receive, Scope, Send

from handlers.contract.errors import TookTooLong
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.admission.lock_waits import SLOT_SECONDS, LockWaits, RowLocked
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.infrastructure.fair_slots import current_requester, share_threads

logger = logging.getLogger(__name__)

FILE_CHUNK_BYTES = 262_144
PROBE_CACHE_SECONDS = 1.0
"""How long the result of a probe is reused."""
PROBE_STALE_SECONDS = 3.0
"""How long it is reused while the next one takes longer than `PROBE_WAIT_SECONDS`."""
PROBE_WAIT_SECONDS = 0.1

Response = tuple[int, list[tuple[bytes, bytes]], bytes]

WsgiApp = Callable[..., Iterable[bytes]]
Value = TypeVar("Value")


class WsgiBridge:
    """An ASGI application that runs a Flask application in a thread pool. The request body is already read.

    A request that has not committed after `seconds` is aborted, also if it still waits for a thread. One
    account, or one address without a credential, gets at most half of the threads, a quarter while others
    send requests, and one address with many accounts all but one. What they send beyond that waits on the
    event loop, and others take turns. Each probe operation has a thread of its own: requests that arrive
    while it runs, or within a second after it, share its result. If it takes long, because the disk or the
    database is busy, they get the last result.
    """

    def __init__(self, app: flask.Flask, threads: int, seconds: float, lock_waits: LockWaits) -> None:
        self.app = app
        self.wsgi: WsgiApp = app.wsgi_app
        self.seconds = seconds
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self.thread_slots = share_threads(threads, contended_share=4)
        self.lock_waits = lock_waits
        self.probe_cache_seconds, self.probe_stale_seconds = PROBE_CACHE_SECONDS, PROBE_STALE_SECONDS
        self._probes: dict[tuple[str, str], _Probe] = {}
        # Behind a WSGI server, requests may run on several event loops.
        self._probes_lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; exceptions of the WSGI application are raised here.

        Raises:
            TookTooLong: the request was aborted.
        """
        context: RequestContext = scope[REQUEST_CONTEXT]
        serve = partial(self._serve, scope, context)
        operation = context.operation
        if operation is not None and operation.is_probe:
            # A HEAD request has another result, because its response has no body.
            future, last = self._run_probe((operation.operation_id, scope["method"]), serve)
            if last is not None:
                current = asyncio.wrap_future(future)
                # Retrieve the exception: asyncio logs one that no request has retrieved.
                current.add_done_callback(lambda done: done.cancelled() or done.exception())
                await asyncio.wait((current,), timeout=PROBE_WAIT_SECONDS)
                future = future if future.done() else last
            status, headers, body = await self._wait(context, future, self._deadline())
            context.is_validated = True
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        try:
            status, headers, body = await self._run_in_thread(context, serve)
        except RowLocked:
            if not context.awaits_lock_slot:
                raise
            status, headers, body = await self._repeat_with_lock_slot(context, serve)
        start = {"type": "http.response.start", "status": status, "headers": headers}
        if context.file is not None:
            await self._send_file(start, context.file, context.file_part, send)
            return
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def call(self, function: Callable[[RequestContext], Value], scope: Scope) -> Value:
        """Call a function that writes nothing in a request thread, before Flask serves the request.

        Raises:
            TookTooLong: the request was aborted.
        """
        context: RequestContext = scope[REQUEST_CONTEXT]

        def call_in_flask() -> Value:
            with self.app.request_context(_environ(scope, context)):
                return function(context)

        return await self._run_in_thread(context, call_in_flask)

    def shutdown(self) -> None:
        """Wait for the running requests and end all threads."""
        self.pool.shutdown()
        for probe in self._probes.values():
            probe.shutdown()

    async def _repeat_with_lock_slot(
        self, context: RequestContext, serve: Callable[[], Response]
    ) -> Response:
        """Serve a request again, whose transaction was rolled back because it found a row locked.

        Raises:
            RowLocked: no slot was free in time.
        """
        requester, slots = current_requester(), self.lock_waits.slots
        context.awaits_lock_slot = False
        if not await slots.take(requester, SLOT_SECONDS):
            if context.idempotent_request is None:
                raise RowLocked
            context.failure = RowLocked()
            return await self._run_in_thread(context, serve)
        context.has_lock_slot = True
        try:
            return await self._run_in_thread(context, serve)
        finally:
            slots.release(requester)
            context.has_lock_slot = False

    async def _run_in_thread(self, context: RequestContext, function: Callable[[], Value]) -> Value:
        ends_at = self._deadline()
        return await self._wait(context, await self._submit_in_turn(context, function), ends_at)

    def _deadline(self) -> float:
        """Return when a request that starts to wait now is aborted, as the time of the event loop."""
        return asyncio.get_running_loop().time() + self.seconds

    async def _wait(self, context: RequestContext, thread_future: Future[Value], ends_at: float) -> Value:
        """Return the result of a thread.

        Raises:
            TookTooLong: there was none in time.
        """
        future = asyncio.wrap_future(thread_future)
        try:
            await asyncio.wait((future,), timeout=ends_at - asyncio.get_running_loop().time())
            if not future.done() and context.try_complete():
                # A running thread cannot be stopped. It fails at `try_complete` before its commit and rolls
                # back.
                future.cancel()
                self._abort(context, Limit.REQUEST_TIME)
            return await future
        finally:
            # Its exception refers to this frame. If this frame referred to it, only the garbage collector
            # would free what the frames of the request refer to, such as its files.
            del future, thread_future

    async def _submit_in_turn(self, context: RequestContext, function: Callable[[], Value]) -> Future[Value]:
        """Call a function in a thread as soon as the account of the request may use one.

        Raises:
            TookTooLong: that took too long.
        """
        requester, slots = current_requester(), self.thread_slots
        if not slots.try_take(requester) and not await slots.take(requester, self.seconds):
            self._abort(context, Limit.REQUEST_THREADS)
        try:
            future = _submit(self.pool, function)
        except BaseException:
            slots.release(requester)
            raise
        # Not when the request ends: the thread of an aborted request still runs.
        future.add_done_callback(lambda _: slots.release(requester))
        return future

    def _run_probe(
        self, key: tuple[str, str], serve: Callable[[], Response]
    ) -> tuple[Future[Response], Future[Response] | None]:
        with self._probes_lock:
            probe = self._probes.setdefault(key, _Probe())
            return probe.run(serve, self.probe_cache_seconds, self.probe_stale_seconds)

    def _abort(self, context: RequestContext, limit: Limit) -> NoReturn:
        name = context.operation.operation_id if context.operation else "a request"
        logger.warning("aborted %s after %s seconds", name, self.seconds)
        raise TookTooLong(limit)

    def _serve(self, scope: Scope, context: RequestContext) -> Response:
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
            started[:] = [
                int(status[:3]),
                [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers],
            ]

        chunks = self.wsgi(_environ(scope, context), start_response)
        try:
            body = b"".join(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        return started[0], started[1], body

    @staticmethod
    async def _send_file(start: Message, path: Path, part: tuple[int, int] | None, send: Send) -> None:
        # Open before sending: a missing file becomes a problem, not a truncated response. Most files are read
        # by the same call, because each call of a thread waits for those that compute.
        first, end = part or (0, sys.maxsize)
        file, chunk = await anyio.to_thread.run_sync(_open_and_read, path, first, end)
        with file:
            await send(start)
            while len(chunk) == FILE_CHUNK_BYTES:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await anyio.to_thread.run_sync(_read_until, file, end)
            await send({"type": "http.response.body", "body": chunk})


def _open_and_read(path: Path, first: int, end: int) -> tuple[BufferedReader, bytes]:
    file = path.open("rb")
    try:
        file.seek(first)
        return file, _read_until(file, end)
    except BaseException:
        file.close()
        raise


def _read_until(file: BufferedReader, end: int) -> bytes:
    """Return the next chunk of a file, at most until a position."""
    return file.read(min(FILE_CHUNK_BYTES, end - file.tell()))


class _Probe:
    """A thread that runs one probe operation, and its last result."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._running: Future[Response] | None = None
        self._last: Future[Response] = Future()
        self._ended_at = float("-inf")

    def run(
        self, serve: Callable[[], Response], cache_seconds: float, stale_seconds: float
    ) -> tuple[Future[Response], Future[Response] | None]:
        """Return the last result, or the future of the running probe and the last result.

        Args:
            serve: Runs the probe.
            cache_seconds: The last result alone is returned up to this age.
            stale_seconds: It is None from this age on.
        """
        if self._running is not None and self._running.done():
            self._last, self._running = self._running, None
        age = time.monotonic() - self._ended_at
        if self._running is None:
            if age < cache_seconds:
                return self._last, None
            self._running = _submit(self._thread, serve)
            self._running.add_done_callback(self._record_end)
        return self._running, self._last if age < stale_seconds else None

    def shutdown(self) -> None:
        """Wait for the probe and end its thread."""
        self._thread.shutdown()

    def _record_end(self, _future: Future[Response]) -> None:
        self._ended_at = time.monotonic()


def _submit(pool: ThreadPoolExecutor, function: Callable[[], Value]) -> Future[Value]:
    # The log context and the span are context variables, which a thread does not inherit.
    return pool.submit(contextvars.copy_context().run, function)


def _environ(scope: Scope, context: RequestContext) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) of a request without its body."""
    server = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        REQUEST_CONTEXT: context,
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode("utf-8").decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 80),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    client = scope.get("client")
    if client:
        environ["REMOTE_ADDR"] = client[0]
    for name, value in scope["headers"]:
        # `wsgi.input` is empty: the arguments in the request context hold the parsed body. A name with an
        # underscore would become that of the field with a hyphen; other ASGI servers than ours pass it on.
        if name == b"content-length" or b"_" in name:
            continue
        key = (
            "CONTENT_TYPE"
            if name == b"content-type"
            else "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        )
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


class _DirectApi(FlaskApi):
    """Register endpoints as views without Connexion's decorators, which would run on every request."""

    def make_operation(self, operation: Any) -> Any:
        """Return the endpoint that the resolver has found."""
        return operation.function


class _BridgedFlask(FlaskASGIApp):
    """Connexion's Flask application with `WsgiBridge` in place of a2wsgi's bridge."""

    def __init__(self, import_name: str, threads: int, seconds: float, lock_waits: LockWaits) -> None:
        super().__init__(import_name, {"static_folder": None})
        self.bridge = WsgiBridge(self.app, threads, seconds, lock_waits)
        self.asgi_app = self.bridge

    def add_api(self, specification: Any, *, name: str | None = None, **kwargs: Any) -> FlaskApi:
        """Register the views of a contract with Flask."""
        api = _DirectApi(specification, **kwargs)
        self.app.register_blueprint(api.blueprint)
        return api


class BridgedFlaskApp(FlaskApp):
    """Connexion's FlaskApp on a `WsgiBridge` of `threads` threads; a request may take `seconds`."""

    def __init__(
        self, import_name: str, *, threads: int, seconds: float, lock_waits: LockWaits, **options: Any
    ) -> None:
        self._middleware_app = bridged_flask = _BridgedFlask(import_name, threads, seconds, lock_waits)
        # Skip FlaskApp.__init__, which would build the bridge that is replaced here.
        AbstractApp.__init__(self, import_name, **options)
        self.app: flask.Flask = bridged_flask.app
        self.bridge = bridged_flask.bridge
        self.app.register_error_handler(werkzeug.exceptions.HTTPException, _to_starlette)


def _to_starlette(error: werkzeug.exceptions.HTTPException) -> Any:
    """Raise an HTTP error of Flask or Werkzeug outside of Flask, where it becomes a problem."""
    raise starlette.exceptions.HTTPException(error.code or 500, detail=error.description)
