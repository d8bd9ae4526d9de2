"""A small HTTP server on the loopback interface: it records requests and sends the test's responses."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class RecordedRequest:
    """A received request. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class StubResponse:
    """A response to send. If `write` is set, it gets the raw connection instead, to break the protocol."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    write: Callable[[Any], None] | None = None


Responder = Callable[[RecordedRequest], StubResponse]


@dataclass(frozen=True)
class HttpRecorder:
    """A running server and the requests it has received so far."""

    port: int
    scheme: str
    requests: list[RecordedRequest]

    @property
    def host(self) -> str:
        """The host and port, in the format that the settings use."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The server's URL without a path."""
        return f"{self.scheme}://{self.host}"


@contextmanager
def run_http_recorder(
    respond: Responder = lambda request: StubResponse(), ssl_context: ssl.SSLContext | None = None
) -> Iterator[HttpRecorder]:
    """Run a server on a free port within the block. Connections that are open at its end are closed."""
    received: list[RecordedRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = RecordedRequest(self.command, self.path, headers, self.rfile.read(length))
            received.append(request)
            response = respond(request)
            if response.write is not None:
                response.write(self.connection)
                return
            self.send_response(response.status)
            for name, value in {"Content-Length": str(len(response.body)), **response.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            """Log nothing: the tests check the recorded requests."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Ignore errors: in some tests the client closes the connection early."""

    server = Server(("127.0.0.1", 0), Handler)
    if ssl_context is not None:
        server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield HttpRecorder(server.server_address[1], "https" if ssl_context else "http", received)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
