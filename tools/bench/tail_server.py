"""Run the server with timers around the parts of each POST request, for `make bench-tail`.

`TAIL_RECORDS=times.json python -m tools.bench.tail_server` starts the server like `python -m handlers`
and writes the times when it ends. It needs only what the server needs.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from db.dialect import PsycopgDialect
from db.fast_path.psycopg_cursor import LazyDescriptionCursor
from handlers.app import Application
from handlers.pipeline.wsgi_bridge import WsgiBridge
from handlers.server.cli import main

RECORDS = "TAIL_RECORDS"
"""The environment variable with the file that the times are written to."""

STATEMENTS = {
    "WITH found": "PostgreSQL: caller and role",
    "INSERT INTO products": "PostgreSQL: the row, its triggers and counts",
    "INSERT INTO audit_events": "PostgreSQL: audit event",
}
"""The parts of statements, by the begin of their text."""
BEGINNING, COMMITTING = "PostgreSQL: BEGIN and settings", "PostgreSQL: COMMIT"
DATABASE = (BEGINNING, *STATEMENTS.values(), COMMITTING)
QUEUE = "waiting for a thread of the pool"
COLLECTION = "garbage collection in the meantime"
TOTAL, THREAD, THREAD_CPU, CPU_IN_STATEMENTS = "total", "thread", "thread CPU", "CPU in statements"

Record = dict[str, float]
"""The seconds of one request by part: the names above."""

_record: ContextVar[Record | None] = ContextVar("record", default=None)


def _replace(owner: Any, name: str, build: Callable[[Any], Any]) -> None:
    setattr(owner, name, build(getattr(owner, name)))


def _time_part(find_part: Callable[..., str | None]) -> Callable[[Any], Any]:
    """Return a decorator that adds the wall time and the CPU time of a call to a part of the request."""

    def decorate(function: Any) -> Any:
        def timed(*arguments: Any, **named: Any) -> Any:
            record, part = _record.get(), find_part(*arguments)
            if record is None or part is None:
                return function(*arguments, **named)
            before, cpu_before = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                record[part] = record.get(part, 0.0) + time.perf_counter() - before
                record[CPU_IN_STATEMENTS] += time.thread_time() - cpu_before

        return timed

    return decorate


def _find_statement(_cursor: object, query: object, *_: object) -> str | None:
    return next((part for begin, part in STATEMENTS.items() if str(query).startswith(begin)), None)


def _instrument(records: list[Record]) -> None:
    """Time the parts of each request, and the garbage collections."""
    pauses: list[tuple[float, float]] = []
    started: list[float] = []

    def note_collection(phase: str, _info: Mapping[str, int]) -> None:
        if phase == "start":
            started[:] = [time.perf_counter()]
        else:
            pauses.append((started[0], time.perf_counter()))

    gc.callbacks.append(note_collection)

    def time_application(call: Any) -> Any:
        async def timed(self: Any, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["method"] != "POST":
                return await call(self, scope, receive, send)
            record: Record = {"began": time.perf_counter(), CPU_IN_STATEMENTS: 0.0, THREAD: 0.0}
            token = _record.set(record)
            first = len(pauses)
            try:
                await call(self, scope, receive, send)
            finally:
                _record.reset(token)
                ended = time.perf_counter()
                record[TOTAL] = ended - record["began"]
                record[COLLECTION] = sum(
                    max(0.0, min(end, ended) - max(begin, record["began"])) for begin, end in pauses[first:]
                )
                records.append(record)

        return timed

    def time_submission(submit: Any) -> Any:
        async def timed(self: Any, *arguments: Any) -> Any:
            record = _record.get()
            if record is not None:
                record["submitted"] = time.perf_counter()
            return await submit(self, *arguments)

        return timed

    def time_thread(run: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            record = _record.get()
            if record is None:
                return run(*arguments)
            began, cpu_began = time.perf_counter(), time.thread_time()
            try:
                return run(*arguments)
            finally:
                record[QUEUE] = began - record["submitted"]
                record[THREAD] = time.perf_counter() - began
                record[THREAD_CPU] = time.thread_time() - cpu_began

        return timed

    _replace(Application, "__call__", time_application)
    _replace(WsgiBridge, "_submit_in_turn", time_submission)
    _replace(WsgiBridge, "_serve", time_thread)
    _replace(PsycopgDialect, "do_begin", _time_part(lambda *_: BEGINNING))
    _replace(PsycopgDialect, "do_commit", _time_part(lambda *_: COMMITTING))
    _replace(LazyDescriptionCursor, "execute", _time_part(_find_statement))


if __name__ == "__main__":
    found: list[Record] = []
    _instrument(found)
    # uvicorn raises the signal again after the shutdown, which would end the process before it writes.
    signal.signal(signal.SIGTERM, lambda *_: None)
    exit_status = main()
    Path(os.environ[RECORDS]).write_text(json.dumps(found), encoding="utf-8")
    sys.exit(exit_status)
