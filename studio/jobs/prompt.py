"""The work of a mock: done at once by the thread that asked for it, before its answer goes out.

So a generation is over when its order has been answered, and ids are given out in the order of the requests.
"""

from __future__ import annotations

from collections.abc import Callable

from studio.jobs.signal import EXPORTS, GENERATIONS
from studio.jobs.workshop import Workshop


class PromptWork:
    """What is called whenever there is something to do; `start` and `stop` once each."""

    def __init__(self, workshop: Workshop, write_archives: Callable[[], object]) -> None:
        self._workshop = workshop
        self._called = ((GENERATIONS, self._paint_all), (EXPORTS, write_archives))

    def start(self) -> None:
        """Begin to listen."""
        for signal, work in self._called:
            signal.call(work)

    def stop(self) -> None:
        """Listen no more."""
        for signal, work in self._called:
            signal.forget(work)
        self._workshop.close()

    def _paint_all(self) -> None:
        while self._workshop.work_off_next():
            pass
