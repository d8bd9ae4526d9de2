"""Writes down which answers of the contract a process gave: operation, status, media type.

It stands around the whole application and reads what goes out, so it believes nobody inside. Nothing calls it
unless CONTRACT_COVERAGE names a folder: pytest loads this module as a plugin then (`make coverage-contract`),
and servers that tests start are begun by `serve.py`. It has no assertions: PYTEST_DONT_REWRITE.
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
"""The environment variable that names the folder; each process writes a file of its own there."""


class Cell(NamedTuple):
    """One kind of answer: an operation, a status, and a media type, or none where there is no body."""

    operation_id: str
    status: int
    media_type: str | None


def _build_routes() -> list[tuple[re.Pattern[str], list[Operation]]]:
    """Return the paths of the contract with their operations; a concrete path comes before a template."""
    by_path: dict[str, list[Operation]] = {}
    for operation in OPERATIONS.values():
        by_path.setdefault(BASE + operation.path, []).append(operation)
    return [
        (re.compile(re.sub(r"\\{[^/]+?\\}", "[^/]+", re.escape(path))), operations)
        for path, operations in sorted(by_path.items(), key=lambda item: item[0].count("{"))
    ]


ROUTES = _build_routes()


def response_cells(method: str, path: str, status: int, media_type: str | None) -> Iterator[Cell]:
    """Yield what an answer is in the contract; 405 belongs to every operation of the path."""
    for pattern, operations in ROUTES:
        if pattern.fullmatch(path):
            for operation in operations:
                if method == operation.method or status == 405:
                    yield Cell(operation.operation_id, status, media_type)
            return


class Recorder:
    """Keeps the cells that it has seen, and appends each new one to a file at once: servers get killed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{os.getpid()}.jsonl"
        self._seen: set[Cell] = set()

    def record(self, scope: dict[str, Any], message: dict[str, Any]) -> None:
        """Take the beginning of an answer."""
        headers = {name.lower(): value for name, value in message["headers"]}
        media_type = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip() or None
        for cell in response_cells(scope["method"], scope["path"], message["status"], media_type):
            if cell not in self._seen:
                self._seen.add(cell)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(cell) + "\n")


def start_recording(folder: Path) -> None:
    """Record what every application of this process answers from now on."""
    # Here, because pytest wants to load one of its packages first.
    from handlers.app import Application

    recorder, serve = Recorder(folder), Application.__call__

    async def serve_and_note(self: Any, scope: Any, receive: Any, send: Any) -> None:
        async def send_and_note(message: Any) -> None:
            # A mock answers what is asked for: that proves nothing.
            if message["type"] == "http.response.start" and self.settings.mode != "mock":
                recorder.record(scope, message)
            await send(message)

        await serve(self, scope, receive, send_and_note)

    Application.__call__ = serve_and_note


def pytest_configure() -> None:
    """Begin, in each process of a test run."""
    start_recording(Path(os.environ[ENVIRONMENT_VARIABLE]))


def load_recorded_cells(folder: Path) -> set[Cell]:
    """Return what all processes wrote."""
    lines = (line for path in folder.glob("*.jsonl") for line in path.read_text("utf-8").splitlines())
    return {Cell(*json.loads(line)) for line in lines}


def recorded_command(module: str) -> list[str]:
    """Return the arguments with which Python runs a module of the server, recorded where that is wanted."""
    arguments = module.split()
    if os.environ.get(ENVIRONMENT_VARIABLE) and arguments[0] == "handlers":
        return ["tests.contract.coverage.serve", *arguments]
    return arguments
