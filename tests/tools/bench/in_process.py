"""The server within this process, asked over a connection that is none: all of it runs, and can be looked at.

Parser, middleware, threads and database are those of `python -m handlers`; only the socket is missing, and
what works beside requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools
import httpx
import sqlalchemy
import uvicorn
import uvloop
from uvicorn.server import ServerState

from handlers.app import create_app
from handlers.server.cli import uvicorn_options
from handlers.server.http_protocol import BoundedHttpProtocol
from studio.settings import Settings
from studio.telemetry.logs import PACKAGES, configure_logging
from tests.tools.bench.profiler import ProfiledPool, Profiler, RequestProfile
from tests.tools.bench.servers import OURS

PORT = 8000
HOST = f"127.0.0.1:{PORT}"
TIMEOUT_SECONDS = 60


class _MemoryTransport(asyncio.Transport):
    """Keeps what the server writes."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50_000), "sockname": ("127.0.0.1", PORT)})
        self.output: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.output.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _Connection(BoundedHttpProtocol):
    """A connection that says when an answer is complete."""

    answered: asyncio.Event

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.answered.set()


class _ParsedResponse:
    """What `httptools` finds in the bytes of one answer."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(data)
        self.status: int = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body


class InProcessServer(httpx.BaseTransport):
    """The server, as a transport for `httpx` and as something to profile."""

    def __init__(self, settings: Settings) -> None:
        self._loop = uvloop.new_event_loop()
        self._profiling = Profiler()
        app = create_app(settings)
        app.bridge.pool.shutdown()
        app.bridge.pool = ProfiledPool(self._profiling)
        self._app = app
        self.backends: list[int] = []
        """The processes of PostgreSQL that work for this server."""
        sqlalchemy.event.listen(app.database.engine, "connect", self._record_backend)
        self._wire = _MemoryTransport()
        self._connection = self._loop.run_until_complete(self._connect(settings))

    def _record_backend(self, connection: Any, _record: object) -> None:
        self.backends.append(connection.info.backend_pid)

    async def _connect(self, settings: Settings) -> _Connection:
        config = uvicorn.Config(self._app, **uvicorn_options(settings))
        connection = _Connection(
            config=config,
            server_state=ServerState(),
            app_state={},
            public_url=settings.public_url,
            idle_timeout=settings.slow_client_seconds,
        )
        connection.answered = asyncio.Event()
        connection.connection_made(self._wire)
        return connection

    def client(self) -> httpx.Client:
        """Return a client of this server; nothing of it needs to be closed."""
        return httpx.Client(transport=self, base_url=f"http://{HOST}")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of `httpx`."""
        head = [f"{request.method} {request.url.raw_path.decode()} HTTP/1.1".encode()]
        head += [name + b": " + value for name, value in request.headers.raw]
        answer = _ParsedResponse(self.send(b"\r\n".join([*head, b"", b""]) + request.read()))
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)

    def send(self, wire: bytes) -> bytes:
        """Answer the bytes of a request."""
        return self._loop.run_until_complete(self._send(wire))

    def profile(self, wire: bytes) -> RequestProfile:
        """Answer the bytes of a request, and tell what that took."""
        return self._loop.run_until_complete(self._send_profiled(wire))

    def measure_cpu_seconds(self, wire: bytes) -> float:
        """Answer the bytes of a request, and tell for how many seconds this process worked for it."""
        began = time.process_time()
        self.send(wire)
        return time.process_time() - began

    async def _send(self, wire: bytes) -> bytes:
        self._connection.answered.clear()
        self._wire.output.clear()
        self._connection.data_received(wire)
        await asyncio.wait_for(self._connection.answered.wait(), TIMEOUT_SECONDS)
        return b"".join(self._wire.output)

    async def _send_profiled(self, wire: bytes) -> RequestProfile:
        self._connection.answered.clear()
        self._profiling.begin()
        try:
            self._connection.data_received(wire)
            await self._connection.answered.wait()
            # The task of the request comes to its end.
            await asyncio.sleep(0)
        finally:
            spent = self._profiling.stop()
        return spent

    def stop(self) -> None:
        """Let go of everything; clients that come and go do not end it."""
        self._connection.connection_lost(None)
        self._app.bridge.pool.shutdown()
        self._app.database.dispose()
        self._loop.close()


@contextlib.contextmanager
def _restored_logging() -> Iterator[None]:
    """Put back who logs where, and from which level on: the server's file is closed with the block."""
    loggers = [logging.getLogger(), *map(logging.getLogger, PACKAGES)]
    kept = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, level, handlers in kept:
            logger.setLevel(level)
            logger.handlers[:] = handlers


@contextlib.contextmanager
def run_in_process_server(folder: Path, database_url: str) -> Iterator[InProcessServer]:
    """Have the server on a database that is prepared, its log in a file."""
    environment = OURS.environment(folder, PORT, database_url)
    settings = Settings.from_environment(environment)
    with (folder / "log").open("a") as log, contextlib.redirect_stderr(log), _restored_logging():
        configure_logging(settings.log_level, settings.log_format, settings.service_name)
        server = InProcessServer(settings)
        # As the server does when it starts.
        gc.freeze()
        try:
            yield server
        finally:
            server.stop()
            gc.unfreeze()
