"""Measure how long a request keeps the event loop busy without a pause."""

from __future__ import annotations

import time
import types
from collections.abc import Coroutine, Generator
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


class MeasuredApplication:
    """An ASGI application that measures the pieces of its requests: what runs between two pauses.

    The CPU time of this thread counts, so other work on the machine hardly changes it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._pieces: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await _measure(self.app(scope, receive, send), self._pieces)  # type: ignore[arg-type]  # it is a coroutine

    def take_longest_piece(self) -> float:
        """Return the CPU seconds of the longest piece since the last call."""
        longest = max(self._pieces)
        self._pieces.clear()
        return longest


@types.coroutine
def _measure(coroutine: Coroutine[Any, Any, None], pieces: list[float]) -> Generator[Any, Any, None]:
    failure: BaseException | None = None
    while True:
        start = time.thread_time()
        try:
            awaited = coroutine.send(None) if failure is None else coroutine.throw(failure)
        except StopIteration:
            return
        finally:
            pieces.append(time.thread_time() - start)
        failure = None
        try:
            yield awaited
        except BaseException as error:  # noqa: BLE001 - such as the cancellation of the request
            failure = error
