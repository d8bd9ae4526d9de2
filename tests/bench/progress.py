"""Says how far a run is, and about how long it takes."""

from __future__ import annotations

import time


class Progress:
    """Counts from when it is made; `seconds` is what the whole is thought to take."""

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds

    def tell(self, what: str) -> None:
        """Print what comes now."""
        print(
            f"{_clock(time.monotonic() - self._began)} of about {_clock(self._seconds)}  {what}", flush=True
        )


def _clock(seconds: float) -> str:
    return "{:2}:{:02}".format(*divmod(round(seconds), 60))
