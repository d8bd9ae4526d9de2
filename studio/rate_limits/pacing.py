"""Notice who sends more than a number of requests in a second, in this process.

It rejects nothing: the caller delays what comes too fast.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable


class Pace:
    """Counts requests by name and second, without a lock: a few that are not counted make no difference.

    Args:
        per_second: How many requests of one name are not too fast.
        clock: Returns seconds.
    """

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._clock = clock
        self._second = 0
        self._counts: Counter[str] = Counter()

    def is_too_fast(self, name: str) -> bool:
        """Count a request; return whether it is beyond the number of this second."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._counts.clear()
        self._counts[name] += 1
        return self._counts[name] > self.per_second
