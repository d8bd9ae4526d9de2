"""A small HTTP server on the loopback interface: it records what it is asked and answers as it was told."""

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
    """One request as it arrived; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class StubResponse:
    """What is sent back; `write` gets the raw connection instead, to misbehave on it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    write: Callable[[Any], None] | None = None


Responder = Callable[[RecordedRequest], StubResponse]


@dataclass(frozen=True)
class HttpRecorder:
    """A server that is up: where, and what it was asked so far."""

    port: int
    scheme: str
    requests: list[RecordedRequest]

    @property
    def host(self) -> str:
        """host:port, as the settings name it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"{self.scheme}://{self.host}"


@contextmanager
def run_http_recorder(
    respond: Responder = lambda asked: StubResponse(), ssl_context: ssl.SSLContext | None = None
) -> Iterator[HttpRecorder]:
    """Serve on a free port until the block ends; connections that are open then are cut."""
    asked: list[RecordedRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = RecordedRequest(self.command, self.path, headers, self.rfile.read(length))
            asked.append(request)
            answer = respond(request)
            if answer.write is not None:
                answer.write(self.connection)
                return
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            """Say nothing: the test looks at what was asked."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if ssl_context is not None:
        server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield HttpRecorder(server.server_address[1], "https" if ssl_context else "http", asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
