"""A thread that runs a function periodically."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from db.engine import is_database_unavailable
from studio.infrastructure.storage import is_storage_unavailable

logger = logging.getLogger(__name__)


class PeriodicTask:
    """A thread that calls a function after every interval; call `start` and `stop` once each.

    The first call comes after one interval, so that it does not slow down the start of a server. An exception
    is logged, and the next call comes after the next interval. An unavailable database is a warning only.

    Args:
        name: The name of the thread, for logs.
        work: The function to call.
        interval_seconds: The time between two calls.
        wake: An event that ends the wait early.
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
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further call, and wait up to a second for one that runs.

        The process may end while `work` runs, so each of its transactions must be complete in itself.
        """
        self._stopping.set()
        self._wake.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._wait_for_stop():
            try:
                self._work()
            except Exception as error:
                name, interval = self._thread.name, self._interval
                if is_database_unavailable(error) or is_storage_unavailable(error):
                    logger.warning(
                        "%s has no database or storage, next run in %s s: %s", name, interval, error
                    )
                else:
                    logger.exception("%s failed, next run in %s s", name, interval)

    def _wait_for_stop(self) -> bool:
        """Wait for the next call, and return whether there is none because the task was stopped."""
        self._wake.wait(self._interval)
        # Clear before reading: `stop` sets `_stopping` first, so this order cannot miss it.
        self._wake.clear()
        return self._stopping.is_set()
