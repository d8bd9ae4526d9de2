"""Record which responses of the contract a process sends: operation, status and media type.

The recorder wraps the whole application and reads the messages on the wire, so it does not depend on the code
that creates the responses. It is active only if CONTRACT_COVERAGE names a folder: pytest then loads this
module as a plugin (`make coverage-contract`), and `serve.py` starts the servers of tests. The module has no
assertions: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.contract.operations import BASE, OPERATIONS, Operation

ENVIRONMENT_VARIABLE = "CONTRACT_COVERAGE"
"""The environment variable with the folder in which each process writes its own file."""


class Cell(NamedTuple):
    """One kind of response: operation, status and media type, which is None for a response without a body."""

    operation_id: str
    status: int
    media_type: str | None


def _build_routes() -> list[tuple[re.Pattern[str], list[Operation]]]:
    """Return the paths of the contract with their operations, concrete paths before templates."""
    by_path: dict[str, list[Operation]] = {}
    for operation in OPERATIONS.values():
        by_path.setdefault(BASE + operation.path, []).append(operation)
    return [
        (re.compile(re.sub(r"\\{[^/]+?\\}", "[^/]+", re.escape(path))), operations)
        for path, operations in sorted(by_path.items(), key=lambda item: item[0].count("{"))
    ]


ROUTES = _build_routes()


def response_cells(method: str, path: str, status: int, media_type: str | None) -> Iterator[Cell]:
    """Yield the cells of a response; a 405 counts for every operation of the path."""
    for pattern, operations in ROUTES:
        if pattern.fullmatch(path):
            for operation in operations:
                if method == operation.method or status == 405:
                    yield Cell(operation.operation_id, status, media_type)
            return


class Recorder:
    """Appends each new cell to a file immediately, because tests kill servers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{os.getpid()}.jsonl"
        self._seen: set[Cell] = set()

    def record(self, scope: dict[str, Any], message: dict[str, Any]) -> None:
        """Record the `http.response.start` message of a response."""
        headers = {name.lower(): value for name, value in message["headers"]}
        media_type = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip() or None
        for cell in response_cells(scope["method"], scope["path"], message["status"], media_type):
            if cell not in self._seen:
                self._seen.add(cell)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(cell) + "\n")


def start_recording(folder: Path) -> None:
    """Record the responses of every application of this process from now on."""
    # A local import: `handlers.app` imports a package that pytest must load first, to rewrite its assertions.
    from handlers.app import Application

    recorder, serve = Recorder(folder), Application.__call__

    async def serve_and_record(self: Any, scope: Any, receive: Any, send: Any) -> None:
        async def send_and_record(message: Any) -> None:
            # A mock returns the response that the client selects, which proves nothing.
            if message["type"] == "http.response.start" and self.settings.mode != "mock":
                recorder.record(scope, message)
            await send(message)

        await serve(self, scope, receive, send_and_record)

    Application.__call__ = serve_and_record


def pytest_configure() -> None:
    """Start recording in each process of a test run."""
    start_recording(Path(os.environ[ENVIRONMENT_VARIABLE]))


def load_recorded_cells(folder: Path) -> set[Cell]:
    """Return the cells that all processes recorded."""
    lines = (line for path in folder.glob("*.jsonl") for line in path.read_text("utf-8").splitlines())
    return {Cell(*json.loads(line)) for line in lines}
