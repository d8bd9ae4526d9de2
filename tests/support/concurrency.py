"""Two requests of which the second overtakes the first at a place that the test names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.client import ClientResponse

MAX_SECONDS = 1
"""Where the overtaking request waits for what the first one holds: SQLite lets nobody write meanwhile."""


class PausedCall:
    """A request that stops before its first call of a function until another one is answered or cannot be."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._max_seconds = max_seconds
        self._is_there, self._may_go_on, self._is_first = threading.Event(), threading.Event(), True
        self._function = getattr(module, name)
        monkeypatch.setattr(module, name, self._pause_and_call)

    def _pause_and_call(self, *arguments: Any, **keywords: Any) -> Any:
        if self._is_first:
            self._is_first = False
            self._is_there.set()
            self._may_go_on.wait(self._max_seconds)
        return self._function(*arguments, **keywords)

    def run_during_pause(
        self, other: Callable[[], ClientResponse], send: Callable[[], ClientResponse]
    ) -> tuple[ClientResponse, ClientResponse]:
        """Give the answers to the request that is overtaken, and to the other one."""
        with ThreadPoolExecutor(2) as pool:
            begun = pool.submit(send)
            assert self._is_there.wait(10)
            overtaking = pool.submit(other)
            overtaking.add_done_callback(lambda _: self._may_go_on.set())
            return begun.result(), overtaking.result()


def run_concurrently(*functions: Callable[[], Any]) -> list[Any]:
    """Return what each of the acts returned, in their order; raises what the first of them raised."""
    together = threading.Barrier(len(functions))

    def begin(act: Callable[[], Any]) -> Any:
        together.wait()
        return act()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(begin, functions))
