"""List the files and functions of this project that run during one request.

    python -m tools.bench.trace_files [METHOD PATH]...

The application runs in this process on a new database with the demo rows. `POST /brands/`,
`GET /products/` and `POST /shots/{id}/generate` are traced by default. Each request is sent twice and the
second one is traced, so that caches and lazy imports do not count. The numbers show how many files a reader
has to open to follow a request.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

import httpx

from handlers.app import Application, create_app
from handlers.server.cli import migrate_and_seed
from studio.infrastructure.settings import Settings
from tools.servers.databases import create_database

ROOT = Path(__file__).parents[2]
PACKAGES = ("handlers", "studio", "db")
Functions = dict[tuple[str, str], None]
"""Path and qualified name of functions, in order."""

DEFAULT_REQUESTS = (("POST", "/brands/"), ("GET", "/products/"), ("POST", "/shots/{id}/generate"))
BODIES = {
    "/brands/": {"name": "Traced brand"},
    "/shots/{id}/generate": {"num_predictions": 1},
}


class FileTrace:
    """The functions of this project that run during a request, in the order of their first calls.

    `direct` has the functions of the handler's module and those that this module calls. `in_handler` has all
    functions that run during the handler, `total` those of the whole request in all threads.
    """

    def __init__(self, handlers: set[CodeType]) -> None:
        self.direct: Functions = {}
        self.in_handler: Functions = {}
        self.total: Functions = {}
        self._handlers = handlers
        self._handler_file = ""
        self._handler_thread: int | None = None

    def record(self, frame: FrameType, event: str) -> None:
        """Record a call or the end of the handler."""
        code = frame.f_code
        if event == "return" and code in self._handlers:
            self._handler_thread = None
        function = _find_function(code) if event == "call" else None
        if function is None:
            return
        if code in self._handlers:
            self._handler_file, self._handler_thread = code.co_filename, get_ident()
        self.total.setdefault(function)
        if self._handler_thread == get_ident():
            self.in_handler.setdefault(function)
            caller = frame.f_back
            callers = {code.co_filename, caller.f_code.co_filename if caller else ""}
            if self._handler_file in callers:
                self.direct.setdefault(function)


class Profiler:
    """The profile function of this process. Python sets it for new threads only, so it is installed first."""

    def __init__(self) -> None:
        self._trace: FileTrace | None = None

    def install(self) -> None:
        """Profile this thread and all threads that start from now on."""
        threading.setprofile(self)
        sys.setprofile(self)

    @contextmanager
    def recording(self, trace: FileTrace) -> Iterator[None]:
        """Record the calls within the block, of all threads."""
        self._trace = trace
        try:
            yield
        finally:
            self._trace = None

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Record an event of the interpreter."""
        if self._trace is not None:
            self._trace.record(frame, event)


@cache
def _find_function(code: CodeType) -> tuple[str, str] | None:
    """Return path and name of a function of this project, or None for other code."""
    path = Path(code.co_filename)
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in PACKAGES:
        return None
    return path.relative_to(ROOT).as_posix(), code.co_qualname


def get_handler_codes(app: Application) -> set[CodeType]:
    """Return the code objects of all handlers of the application."""
    handlers: list[Any] = [endpoint._handler for endpoint in app.endpoints.values()]
    return {handler.__code__ for handler in handlers}


async def trace_request(app: Application, profiler: Profiler, method: str, path: str) -> FileTrace:
    """Return the trace of one request of the demo account.

    Raises:
        httpx.HTTPStatusError: The request failed.
    """
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000/api/v1") as client:
        login = {"username": "demo@example.com", "password": "sartiq-demo"}
        token = (await client.post("/login/access-token", data=login)).raise_for_status().json()
        client.headers["Authorization"] = f"Bearer {token['access_token']}"
        organization = (await client.get("/organizations/")).raise_for_status().json()["data"][0]["id"]
        scope = {"organization_id": organization}
        trace = FileTrace(get_handler_codes(app))
        for recorder in (FileTrace(set()), trace):
            url, params = path, dict(scope)
            if "{id}" in path:
                collection = path.partition("{id}")[0]
                rows = (await client.get(collection, params=scope)).raise_for_status().json()["data"]
                states = (None, "pending", "pending_review", "rejected", "revision_requested")
                row = next(row for row in rows if row.get("status") in states)
                url, params = path.replace("{id}", row["id"]), {}
            body = BODIES.get(path, {}) if method in ("POST", "PATCH", "PUT") else None
            with profiler.recording(recorder):
                response = await client.request(method, url, params=params, json=body)
            response.raise_for_status()
    return trace


def format_functions(functions: Functions) -> str:
    """Return the numbers of files and functions, and the list of functions by file."""
    files: dict[str, list[str]] = {}
    for path, function in functions:
        files.setdefault(path, []).append(function)
    lines = [f"{len(files)} files, {len(functions)} functions"]
    lines += [f"    {path}: {', '.join(names)}" for path, names in files.items()]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Trace the given requests, print the result, and return the exit status."""
    if len(arguments) % 2 or "--help" in arguments:
        print(__doc__)
        return 2
    requests = tuple(zip(arguments[::2], arguments[1::2], strict=True)) or DEFAULT_REQUESTS
    with tempfile.TemporaryDirectory() as folder, create_database() as url:
        environment = {"DATA_DIR": folder, "DATABASE_URL": url}
        environment |= {"SARTIQ_ENV": "development", "LOG_LEVEL": "ERROR"}
        settings = Settings.from_environment(environment)
        profiler = Profiler()
        profiler.install()
        migrate_and_seed(settings)
        app = create_app(settings)
        for method, path in requests:
            trace = asyncio.run(trace_request(app, profiler, method, path))
            print(f"{method} {path}")
            print("  called by the handler's module:", format_functions(trace.direct))
            print("  while the handler runs:", format_functions(trace.in_handler))
            print("  in total:", format_functions(trace.total))
        app.database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
