"""Print the progress of a run."""

from __future__ import annotations

import time


class Progress:
    """A timer that starts when it is created; `seconds` is the estimated duration of the run."""

    def __init__(self, seconds: float) -> None:
        self._started_at = time.monotonic()
        self._seconds = seconds

    def report(self, step: str) -> None:
        """Print the elapsed and the estimated time, and the step that starts now."""
        print(
            f"{_format_seconds(time.monotonic() - self._started_at)} of about "
            f"{_format_seconds(self._seconds)}  {step}",
            flush=True,
        )


def _format_seconds(seconds: float) -> str:
    return "{:2}:{:02}".format(*divmod(round(seconds), 60))
