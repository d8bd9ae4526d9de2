"""Run the server in this process over an in-memory connection, so that it can be profiled.

Parser, middleware, threads and database are those of `python -m handlers`. Only the socket and the background
work are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import httptools
import httpx
import sqlalchemy
import uvicorn
import uvloop
from uvicorn.server import ServerState

from handlers.app import create_app
from handlers.pipeline.admission.connections import ConnectionLimits
from handlers.server.cli import uvicorn_options
from handlers.server.http_protocol import BoundedHttpProtocol
from studio.infrastructure.settings import Settings
from studio.infrastructure.telemetry.logs import PACKAGES, configure_logging
from studio.rate_limits.memory_store import RateLimitStore
from tools.bench.profiler import ProfiledPool, Profiler, RequestProfile
from tools.bench.servers import OURS

PORT = 8000
HOST = f"127.0.0.1:{PORT}"
TIMEOUT_SECONDS = 60
_BACKENDS = sqlalchemy.text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")


class _MemoryTransport(asyncio.Transport):
    """Collects the bytes that the server writes."""

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
    """A connection that sets an event when a response is complete."""

    completed: asyncio.Event

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.completed.set()


class _ParsedResponse:
    """The status, headers and body of a response, parsed by `httptools`."""

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
    """The server in this process: an `httpx` transport that can profile requests."""

    def __init__(self, settings: Settings) -> None:
        self._loop = uvloop.new_event_loop()
        self._profiler = Profiler()
        app = create_app(settings)
        app.bridge.pool.shutdown()
        app.bridge.pool = ProfiledPool(self._profiler)
        self._app = app
        self.backends: list[int] = []
        """The process ids of this server's PostgreSQL backends, when they were last looked for."""
        self._wire = _MemoryTransport()
        self._connection = self._loop.run_until_complete(self._connect(settings))

    def find_backends(self) -> None:
        """Look for the backends of the database, once requests have opened the connections they need."""
        with self._app.database.engine.connect() as connection:
            self.backends = list(connection.scalars(_BACKENDS))

    async def _connect(self, settings: Settings) -> _Connection:
        config = uvicorn.Config(self._app, **uvicorn_options(settings))
        connection = _Connection(
            config=config,
            server_state=ServerState(),
            app_state={},
            public_url=settings.public_url,
            idle_timeout=settings.slow_client_seconds,
            connection_limits=ConnectionLimits(1, 1, ()),
        )
        connection.completed = asyncio.Event()
        connection.connection_made(self._wire)
        return connection

    def client(self) -> httpx.Client:
        """Return a client of this server. It does not need to be closed."""
        return httpx.Client(transport=self, base_url=f"http://{HOST}")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send an `httpx` request and return its response."""
        head = [f"{request.method} {request.url.raw_path.decode()} HTTP/1.1".encode()]
        head += [name + b": " + value for name, value in request.headers.raw]
        response = _ParsedResponse(self.send(b"\r\n".join([*head, b"", b""]) + request.read()))
        return httpx.Response(response.status, headers=response.headers, content=response.body)

    def send(self, wire: bytes) -> bytes:
        """Send the bytes of a request and return the bytes of its response."""
        return self._loop.run_until_complete(self._send(wire))

    def profile(self, wire: bytes) -> RequestProfile:
        """Send the bytes of a request and return its profile."""
        return self._loop.run_until_complete(self._send_profiled(wire))

    def measure_cpu_seconds(self, wire: bytes) -> float:
        """Send the bytes of a request and return the CPU seconds of this process."""
        started_at = time.process_time()
        self.send(wire)
        return time.process_time() - started_at

    async def _send(self, wire: bytes) -> bytes:
        self._connection.completed.clear()
        self._wire.output.clear()
        self._connection.data_received(wire)
        await asyncio.wait_for(self._connection.completed.wait(), TIMEOUT_SECONDS)
        return b"".join(self._wire.output)

    async def _send_profiled(self, wire: bytes) -> RequestProfile:
        self._connection.completed.clear()
        self._profiler.begin()
        try:
            self._connection.data_received(wire)
            await self._connection.completed.wait()
            # Let the task of the request finish.
            await asyncio.sleep(0)
        finally:
            profile = self._profiler.stop()
        return profile

    @contextlib.contextmanager
    def limits_stored_in(self, store: RateLimitStore) -> Iterator[None]:
        """Count rate limits in another store within the block."""
        limits = self._app.services.rate_limiter
        stored, limits.store = limits.store, store
        try:
            yield
        finally:
            limits.store = stored

    def stop(self) -> None:
        """Release all resources. Closing a client does not stop the server."""
        self._connection.connection_lost(None)
        self._app.bridge.pool.shutdown()
        self._app.database.dispose()
        self._loop.close()


@contextlib.contextmanager
def _restored_logging() -> Iterator[None]:
    """Restore the levels and handlers of the loggers: the server's log file is closed after the block."""
    loggers = [logging.getLogger(), *map(logging.getLogger, PACKAGES)]
    saved = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, level, handlers in saved:
            logger.setLevel(level)
            logger.handlers[:] = handlers


@contextlib.contextmanager
def run_in_process_server(folder: Path, database_url: str) -> Iterator[InProcessServer]:
    """Run the server on a prepared database, with its log in a file."""
    environment = OURS.environment(folder, PORT, database_url)
    settings = Settings.from_environment(environment)
    with (folder / "log").open("a") as log, contextlib.redirect_stderr(log), _restored_logging():
        configure_logging(settings.log_level, settings.log_format, settings.service_name)
        server = InProcessServer(settings)
        # The server does this when it starts.
        gc.freeze()
        try:
            yield server
        finally:
            server.stop()
            gc.unfreeze()
