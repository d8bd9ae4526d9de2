"""The work of a mock: done at once by the thread that asked for it, before its answer goes out.

So a generation is over when its order has been answered, and ids are given out in the order of the requests.
"""

from __future__ import annotations

from collections.abc import Callable

from studio.generations.worker.executor import GenerationExecutor
from studio.pubsub import EXPORTS, GENERATIONS


class InlineRunner:
    """What is called whenever there is something to do; `start` and `stop` once each."""

    def __init__(self, executor: GenerationExecutor, run_exports: Callable[[], object]) -> None:
        self._executor = executor
        self._subscriptions = ((GENERATIONS, self._run_all), (EXPORTS, run_exports))

    def start(self) -> None:
        """Begin to listen."""
        for signal, work in self._subscriptions:
            signal.subscribe(work)

    def stop(self) -> None:
        """Listen no more."""
        for signal, work in self._subscriptions:
            signal.unsubscribe(work)
        self._executor.close()

    def _run_all(self) -> None:
        while self._executor.run_next():
            pass
