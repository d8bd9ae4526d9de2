"""Something that a process does again and again beside its requests, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class PeriodicTask:
    """Calls `work` after every pause, as long as the process lives; `start` and `stop` once each.

    It begins with a pause: a server that has just started has better things to do. Setting `wake` ends a
    pause. What `work` raises is logged, and the next round tries again.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        interval_seconds: float,
        wake: threading.Event | None = None,
    ) -> None:
        self._work, self._interval = work, interval_seconds
        self._stopping = threading.Event()
        self._wake = wake or threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with the first pause."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further round. One that runs is left behind, so each of its steps must be whole."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._wait_for_stop():
            try:
                self._work()
            except Exception:
                logger.exception("%s failed; it is tried again", self._thread.name)

    def _wait_for_stop(self) -> bool:
        """Pause; whether that was the last pause."""
        self._wake.wait(self._interval)
        # In this order: `stop` sets them the other way round.
        self._wake.clear()
        return self._stopping.is_set()
