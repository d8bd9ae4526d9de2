"""A local HTTP server that misbehaves as a test tells it, and records what it received."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tools.servers.http_recorder import RecordedRequest


@dataclass(frozen=True)
class Answer:
    """One response. `announced` is its Content-Length, if that is not the length of the content."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    announced: int | None = None

    @property
    def content(self) -> bytes:
        """Return the body as bytes: JSON, unless it is bytes already."""
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


class Drop:
    """Close the connection without a response."""


Script = Answer | Drop | Callable[[RecordedRequest], "Answer | Drop"]


def problem(status: int, code: str, **headers: str) -> Answer:
    """Return a problem document."""
    body = {"type": "about:blank", "title": "Problem", "status": status, "detail": "It did not work",
            "code": code, "request_id": "request-1"}  # fmt: skip
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, {"Content-Type": "application/problem+json", **named})


class ScriptedServer:
    """Send the scripted responses in their order; after the last one, send it again."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.script: list[Script] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._build_handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def answer_with(self, *script: Script) -> None:
        """Set the responses."""
        self.script = list(script)

    @property
    def url(self) -> str:
        """Return the origin."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, request: RecordedRequest) -> Answer | Drop:
        with self._lock:
            self.requests.append(request)
            script = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return script(request) if callable(script) else script

    def _build_handler(scripted) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self) -> None:
                if self.headers.get("transfer-encoding") == "chunked":
                    raise AssertionError("a presigned upload needs a Content-Length")
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                # A header that was sent twice has both values, so that a test notices it.
                headers = {name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers}
                answer = scripted._take(RecordedRequest(self.command, self.path, headers, body))
                self.close_connection = True
                if isinstance(answer, Drop):
                    return
                content = answer.content
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status not in (204, 304):
                    self.send_header("Content-Length", str(answer.announced or len(content)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        return Handler
