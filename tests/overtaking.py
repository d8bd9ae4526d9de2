"""Two requests of which the second overtakes the first at a place that the test names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.mini.asking import Reply

LONGEST_SECONDS = 1
"""Where the overtaking request waits for what the first one holds: SQLite lets nobody write meanwhile."""


class Begun:
    """A request that stops before its first call of a function until another one is answered or cannot be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self._is_there, self._may_go_on, self._is_first = threading.Event(), threading.Event(), True
        self._function = getattr(module, name)
        monkeypatch.setattr(module, name, self._call_later)

    def _call_later(self, *arguments: Any, **named: Any) -> Any:
        if self._is_first:
            self._is_first = False
            self._is_there.set()
            self._may_go_on.wait(LONGEST_SECONDS)
        return self._function(*arguments, **named)

    def overtaken_by(self, other: Callable[[], Reply], send: Callable[[], Reply]) -> tuple[Reply, Reply]:
        """Give the answers to the request that is overtaken, and to the other one."""
        with ThreadPoolExecutor(2) as pool:
            begun = pool.submit(send)
            assert self._is_there.wait(10)
            overtaking = pool.submit(other)
            overtaking.add_done_callback(lambda _: self._may_go_on.set())
            return begun.result(), overtaking.result()
