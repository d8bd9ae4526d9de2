"""Something that a process does again and again beside its requests, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Repeating:
    """Calls `work` after every pause, as long as the process lives; `start` and `stop` once each.

    It begins with a pause: a server that has just started has better things to do. What `work` raises is
    logged, and the next round tries again.
    """

    def __init__(self, name: str, work: Callable[[], object], pause_seconds: float) -> None:
        self._work, self._pause = work, pause_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with the first pause."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further round. One that runs is left behind, so each of its steps must be whole."""
        self._stopping.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            try:
                self._work()
            except Exception:
                logger.exception("%s failed; it is tried again", self._thread.name)
