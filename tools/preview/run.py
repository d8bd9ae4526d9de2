"""`make preview`: serve the documentation page of the contract while you edit it, and update it on each save.

It serves only the pages, not the operations. The page shows errors in the YAML with file and line, above the
last bundle without errors, and the findings of Redocly about two seconds later.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tools.preview.sources import SourceError, Sources
from tools.project import ContractError, pages
from tools.review.checks import Finding, redocly_findings
from tools.review.tools import ToolFailed, ToolStopped

HERE = Path(__file__).parent
OPENAPI = Path(__file__).parents[2] / "openapi"
POLL_SECONDS = 0.2
MAX_PORT = 65_535
# The code samples use this URL, the default of `make run`.
SERVER_URL = "http://localhost:8000"

Content = tuple[bytes, str]


class Preview:
    """The newest bundle without errors, and the error in the current files, if any."""

    def __init__(self, folder: Path) -> None:
        self.sources = Sources(folder)
        self.saved: dict[Path, int] = {}
        self.bundle = b"{}"
        self.version = 0
        self.error: SourceError | None = None
        self.findings: list[Finding] = []
        self._linted: dict[Path, int] = {}

    def poll(self) -> None:
        """Build the bundle again if a file has changed since the last call."""
        saved = self.sources.modification_times()
        if saved == self.saved:
            return
        try:
            self.bundle = json.dumps(self.sources.bundle(), default=str).encode("utf-8")
        except SourceError as error:
            self.error = error
        else:
            self.error = None
            self.version += 1
        # Last, so that the linter does not start on files whose errors are not known yet.
        self.saved = saved

    def lint(self) -> None:
        """Run the linter if a file has changed since the last call and the YAML has no errors.

        A save ends the run: the next call starts again, instead of waiting for findings of an older version.
        """
        saved = self.saved

        def is_outdated() -> bool:
            try:
                return self.sources.modification_times() != saved
            except FileNotFoundError:
                # An editor replaces a file.
                return True

        if saved == self._linted or self.error or is_outdated():
            return
        try:
            found = redocly_findings(self.sources.folder, is_outdated)
        except ToolStopped:
            return
        except ToolFailed as error:
            found = [Finding("", str(error))]
        # The linter may have read some files before a save and others after it.
        if not is_outdated():
            self.findings, self._linted = found, saved

    def lint_forever(self) -> None:
        """Lint after each change, apart from the polling thread: the linter takes two seconds."""
        while True:
            time.sleep(POLL_SECONDS)
            self.lint()

    def watch(self) -> None:
        """Poll forever."""
        while True:
            time.sleep(POLL_SECONDS)
            try:
                self.poll()
            except FileNotFoundError:
                # Editors replace a file when they save it. It exists again at the next poll.
                continue

    def state(self) -> Content:
        """Return the state that the page polls: the version of the bundle, the error and the findings."""
        error = self.error
        details = {"file": error.file, "line": error.line, "message": error.message} if error else None
        # The linter reports an error in the YAML again for each reference to the file.
        findings = [] if error else [finding._asdict() for finding in self.findings]
        state = {"version": self.version, "error": details, "findings": findings}
        return json.dumps(state).encode("utf-8"), "application/json"

    def openapi_30(self) -> bytes:
        """Return the document that the page shows. What has no OpenAPI 3.0 form yet is shown as it is."""
        try:
            return pages.contract_30_json(self.published())
        except ContractError:
            return self.bundle

    def published(self) -> bytes:
        """Return the document with code samples. Without them if a draft lacks what they need."""
        try:
            compressed = pages.compressed_published_contract(zlib.compress(self.bundle), SERVER_URL)
            return zlib.decompress(compressed)
        except (ContractError, LookupError, StopIteration):
            return self.bundle

    def permissions(self) -> Content:
        """Return the permissions page, or a sentence if a draft has a permission that is not listed yet."""
        try:
            return pages.permissions_page(self.bundle), "text/html"
        except LookupError as error:
            return f"`{error.args[0]}` is missing: see openapi/permissions.yaml.\n".encode(), "text/plain"

    def page(self) -> Content:
        """Return the documentation page with the script that polls."""
        script = b'<script src="/preview.js" defer></script>\n</head>'
        return pages.docs_page().replace(b"</head>", script), "text/html"

    def content(self, path: str) -> Content | None:
        """Return the content at a path, or None if there is none."""
        routes: dict[str, Callable[[], Content]] = {
            "/preview.js": lambda: ((HERE / "preview.js").read_bytes(), "text/javascript"),
            "/preview/state": self.state,
            "/api/v1/docs": self.page,
            "/api/v1/openapi-3.0.json": lambda: (self.openapi_30(), "application/json"),
            "/api/v1/openapi.json": lambda: (self.published(), "application/json"),
            "/api/v1/openapi.yaml": lambda: (pages.contract_yaml(self.published()), "application/yaml"),
            "/api/v1/docs/permissions": self.permissions,
            "/api/v1/docs/states": lambda: (pages.states_page(), "text/html"),
            "/api/v1/problems/": lambda: (pages.problems_page(), "text/html"),
        }
        if path in routes:
            return routes[path]()
        if path.startswith("/api/v1/problems/"):
            page = pages.problem_page(path.removeprefix("/api/v1/problems/"))
            return (page, "text/html") if page else None
        return pages.find_asset(path.removeprefix("/api/v1/docs/"))


def create_server(preview: Preview, port: int) -> ThreadingHTTPServer:
    """Return a server of the preview on the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/":
                self.send_response(302)
                self.send_header("Location", "/api/v1/docs")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content, media_type = preview.content(path) or (b"Not found", "text/plain")
            self.send_response(200 if media_type != "text/plain" else 404)
            self.send_header("Content-Type", f"{media_type}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", pages.CONTENT_SECURITY_POLICY)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Log nothing: the page sends several requests per second."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"`{text}` is not a port: use a number up to {MAX_PORT}")
    return int(text)


def main() -> int:
    """Serve until Ctrl-C and return the exit status."""
    parser = argparse.ArgumentParser(prog="make preview", description=__doc__)
    # argparse also converts a default that is a text, and names the option if it is wrong.
    parser.add_argument("--port", type=_port, default=os.environ.get("PORT", "8001"))
    parser.add_argument("--folder", type=Path, default=OPENAPI, help="folder of openapi.yaml")
    arguments = parser.parse_args()
    preview = Preview(arguments.folder.resolve())
    try:
        server = create_server(preview, arguments.port)
    except OSError as error:
        print(
            f"Port {arguments.port} cannot be used: {error.strerror}. "
            f"Use another one: make preview PORT={(arguments.port or 8000) + 1}",
            file=sys.stderr,
        )
        return 1
    preview.poll()
    for task in (preview.watch, preview.lint_forever):
        threading.Thread(target=task, daemon=True).start()
    with server:
        print(
            f"Preview of {arguments.folder} at http://127.0.0.1:{server.server_port}/ (Ctrl-C stops it)",
            flush=True,
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
