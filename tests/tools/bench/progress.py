"""Says how far a run is, and about how long it takes."""

from __future__ import annotations

import time


class Progress:
    """Counts from when it is made; `seconds` is what the whole is thought to take."""

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds

    def report(self, step: str) -> None:
        """Print what comes now."""
        print(
            f"{_format_seconds(time.monotonic() - self._began)} of about "
            f"{_format_seconds(self._seconds)}  {step}",
            flush=True,
        )


def _format_seconds(seconds: float) -> str:
    return "{:2}:{:02}".format(*divmod(round(seconds), 60))
