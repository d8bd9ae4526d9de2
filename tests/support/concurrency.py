"""Run requests concurrently, or one request while another one is paused at a function call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.client import ClientResponse

MAX_SECONDS = 1
"""The longest pause. The other request can wait for a lock that the paused one holds."""


class WriterAborted(Exception):
    """Raised by a writer to roll its transaction back."""


class PausedCall:
    """Pause the first call of a function, so that another request runs meanwhile.

    The pause ends when the other request has ended, at the latest after `max_seconds`.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._max_seconds = max_seconds
        self._paused, self._resume, self._is_first = threading.Event(), threading.Event(), True
        self._function = getattr(module, name)
        monkeypatch.setattr(module, name, self._pause_and_call)

    def _pause_and_call(self, *arguments: Any, **keywords: Any) -> Any:
        if self._is_first:
            self._is_first = False
            self._paused.set()
            self._resume.wait(self._max_seconds)
        return self._function(*arguments, **keywords)

    def run_during_pause(
        self, other: Callable[[], ClientResponse], send: Callable[[], ClientResponse]
    ) -> tuple[ClientResponse, ClientResponse]:
        """Run `send`, and `other` during its pause; return both responses in this order."""
        with ThreadPoolExecutor(2) as pool:
            paused = pool.submit(send)
            assert self._paused.wait(10)
            concurrent = pool.submit(other)
            concurrent.add_done_callback(lambda _: self._resume.set())
            return paused.result(), concurrent.result()


def run_concurrently(*functions: Callable[[], Any]) -> list[Any]:
    """Call all functions at the same time and return their results in order; raise the first exception."""
    barrier = threading.Barrier(len(functions))

    def call(function: Callable[[], Any]) -> Any:
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(call, functions))


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until the condition holds; fail if it does not within these seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not met in {seconds} s"
        time.sleep(0.02)
