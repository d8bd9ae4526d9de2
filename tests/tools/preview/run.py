"""The command behind `make preview`: the documentation page of the YAML being edited, reloaded at every save.

It serves the pages only; operations are tried on a server. What is wrong with the YAML is shown on the page
with file and line, above the last bundle that could be read.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from handlers import pages
from handlers.pages.code_samples import build_code_samples
from tests.tools.preview.sources import SourceError, Sources

HERE = Path(__file__).parent
OPENAPI = Path(__file__).parents[3] / "openapi"
POLL_SECONDS = 0.2
# Of the server that is running beside, when there is one.
ADDRESS = "http://localhost:8000"

Content = tuple[bytes, str]


class Preview:
    """The newest bundle that could be read, and what is wrong with the files as they are."""

    def __init__(self, folder: Path) -> None:
        self.sources = Sources(folder)
        self.saved: dict[Path, int] = {}
        self.bundle = b"{}"
        self.version = 0
        self.error: SourceError | None = None

    def poll(self) -> None:
        """Read what was saved since the last look."""
        saved = self.sources.modification_times()
        if saved == self.saved:
            return
        self.saved, self.error = saved, None
        try:
            self.bundle = json.dumps(self.sources.bundle(), default=str).encode("utf-8")
        except SourceError as mistake:
            self.error = mistake
        else:
            self.version += 1

    def watch(self) -> None:
        """Look for ever."""
        while True:
            time.sleep(POLL_SECONDS)
            try:
                self.poll()
            except FileNotFoundError:
                # Editors replace a file: it is there at the next look.
                continue

    def state(self) -> Content:
        """Return what the page asks for over and over: which bundle there is, and what is wrong."""
        wrong = self.error
        told = {"file": wrong.file, "line": wrong.line, "message": wrong.message} if wrong else None
        return json.dumps({"version": self.version, "mistake": told}).encode("utf-8"), "application/json"

    def page(self) -> Content:
        """Return the documentation page with the script that watches."""
        script = b'<script src="/preview.js" defer></script>\n</head>'
        return pages.docs_page().replace(b"</head>", script), "text/html"

    def content(self, path: str) -> Content | None:
        """Return what is at a path, None when there is nothing."""
        made: dict[str, Callable[[], Content]] = {
            "/preview.js": lambda: ((HERE / "preview.js").read_bytes(), "text/javascript"),
            "/preview/state": self.state,
            "/api/v1/docs": self.page,
            "/api/v1/openapi.json": lambda: (self.bundle, "application/json"),
            "/api/v1/openapi.yaml": lambda: (pages.contract_yaml(self.bundle), "application/yaml"),
            "/api/v1/docs/permissions": lambda: (pages.permissions_page(self.bundle), "text/html"),
            "/api/v1/docs/states": lambda: (pages.states_page(), "text/html"),
            "/api/v1/problems/": lambda: (pages.problems_page(), "text/html"),
            "/api/v1/docs/code-samples.json": lambda: (self._samples(), "application/json"),
        }
        if path in made:
            return made[path]()
        if path.startswith("/api/v1/problems/"):
            page = pages.problem_page(path.removeprefix("/api/v1/problems/"))
            return (page, "text/html") if page else None
        return pages.find_asset(path.removeprefix("/api/v1/docs/"))

    def _samples(self) -> bytes:
        return json.dumps(build_code_samples(json.loads(self.bundle), ADDRESS)).encode("utf-8")


def create_server(preview: Preview, port: int) -> ThreadingHTTPServer:
    """Return a server of the preview on the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/":
                self.send_response(302)
                self.send_header("Location", "/api/v1/docs")
                self.end_headers()
                return
            content, media_type = preview.content(path) or (b"Not found", "text/plain")
            self.send_response(200 if media_type != "text/plain" else 404)
            self.send_header("Content-Type", f"{media_type}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", pages.CONTENT_SECURITY_POLICY)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing: the page asks several times a second."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8001")))
    parser.add_argument("--folder", type=Path, default=OPENAPI, help="where openapi.yaml is")
    arguments = parser.parse_args()
    preview = Preview(arguments.folder.resolve())
    preview.poll()
    threading.Thread(target=preview.watch, daemon=True).start()
    with create_server(preview, arguments.port) as serving:
        print(
            f"Preview of {arguments.folder} at http://127.0.0.1:{serving.server_port}/ (Ctrl-C ends it)",
            flush=True,
        )
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
