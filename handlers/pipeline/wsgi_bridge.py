"""From the event loop to Flask and back with one thread hop, and files from disk without Flask.

Connexion's own bridge hops between loop and thread for every message, and its Flask side rebuilds decorators
on every request. This one hands the thread a complete request, and takes back a complete answer.
Of the 90 microseconds that are left, most are the context of Flask and the objects of Werkzeug.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio
import flask
import starlette.exceptions
import werkzeug.exceptions
from connexion.apps.abstract import AbstractApp
from connexion.apps.flask import FlaskApi, FlaskApp, FlaskASGIApp
from starlette.types import Message, Receive, Scope, Send

from handlers.contract.errors import TookTooLong
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext

logger = logging.getLogger(__name__)

FILE_CHUNK_BYTES = 262_144

WsgiApp = Callable[..., Iterable[bytes]]


class WsgiBridge:
    """An ASGI application that runs a WSGI one in a pool of threads. Request bodies were read before.

    What has not been decided after `seconds` is given up, whether it is at work or still waits for a thread.
    """

    def __init__(self, wsgi: WsgiApp, threads: int, seconds: float) -> None:
        self.wsgi = wsgi
        self.seconds = seconds
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what the WSGI application raises is raised here, and TookTooLong."""
        call: RequestContext = scope[REQUEST_CONTEXT]
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self.pool, context.run, self._serve, scope, call)
        done, _ = await asyncio.wait((work,), timeout=self.seconds)
        if not done and call.try_complete():
            # A thread that is at work cannot be stopped; it finds out before it commits, and rolls back.
            work.cancel()
            name = call.operation.operation_id if call.operation else "a request"
            logger.warning("gave up %s after %s seconds", name, self.seconds)
            raise TookTooLong
        status, headers, body = await work
        start = {"type": "http.response.start", "status": status, "headers": headers}
        if call.file is not None:
            await self._send_file(start, call.file, send)
            return
        await send(start)
        await send({"type": "http.response.body", "body": body})

    def _serve(self, scope: Scope, call: RequestContext) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
            started[:] = [
                int(status[:3]),
                [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers],
            ]

        chunks = self.wsgi(_environ(scope, call), start_response)
        try:
            body = b"".join(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        return started[0], started[1], body

    @staticmethod
    async def _send_file(start: Message, path: Path, send: Send) -> None:
        # Opened first: a file that has vanished is then a problem, not half an answer.
        async with await anyio.open_file(path, "rb") as file:
            await send(start)
            while chunk := await file.read(FILE_CHUNK_BYTES):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _environ(scope: Scope, call: RequestContext) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) of a request whose body was read already."""
    server = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        REQUEST_CONTEXT: call,
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
        if name == b"content-length":
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
    """Registers endpoints as they are: they need none of Connexion's per-request decorators."""

    def make_operation(self, operation: Any) -> Any:
        """Return the endpoint that the resolver found."""
        return operation.function


class _BridgedFlask(FlaskASGIApp):
    """Connexion's Flask side with our bridge in place of a2wsgi's."""

    def __init__(self, import_name: str, threads: int, seconds: float) -> None:
        super().__init__(import_name, {"static_folder": None})
        self.bridge = WsgiBridge(self.app.wsgi_app, threads, seconds)
        self.asgi_app = self.bridge

    def add_api(self, specification: Any, *, name: str | None = None, **kwargs: Any) -> FlaskApi:
        """Register one contract on Flask."""
        api = _DirectApi(specification, **kwargs)
        self.app.register_blueprint(api.blueprint)
        return api


class BridgedFlaskApp(FlaskApp):
    """Connexion's FlaskApp over our bridge; `threads` requests run at once, for `seconds` at most."""

    def __init__(self, import_name: str, *, threads: int, seconds: float, **options: Any) -> None:
        self._middleware_app = flask_side = _BridgedFlask(import_name, threads, seconds)
        # Not FlaskApp's own __init__, which would build the bridge that is replaced here.
        AbstractApp.__init__(self, import_name, **options)
        self.app: flask.Flask = flask_side.app
        self.bridge = flask_side.bridge
        self.app.register_error_handler(werkzeug.exceptions.HTTPException, _to_starlette)


def _to_starlette(error: werkzeug.exceptions.HTTPException) -> Any:
    """Raise Flask's own errors, which our routing leaves no room for, where problems are made."""
    raise starlette.exceptions.HTTPException(error.code or 500, detail=error.description)
