"""The table of retries: how often a row is tried, and the delay after each failed attempt."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

JITTER = 0.1
"""A delay is up to this share shorter or longer: rows that failed together are not retried together."""


@dataclass(frozen=True)
class RetryPolicy:
    """The delays after each failed attempt. The attempt after the last delay is the last one."""

    delays: tuple[timedelta, ...]

    @property
    def max_attempts(self) -> int:
        """The number of attempts."""
        return len(self.delays) + 1

    def delay_after(self, attempts: int, retry_after: timedelta | None = None) -> timedelta:
        """Return the time until the next attempt.

        Args:
            attempts: The number of failed attempts, less than `max_attempts`. 0 counts as 1: a queue
                may count the attempts of its rows in another table.
            retry_after: The shortest delay, which a server has asked for.
        """
        jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
        return max(self.delays[max(attempts, 1) - 1] * jitter, retry_after or timedelta(0))


def _seconds(*delays: float) -> RetryPolicy:
    return RetryPolicy(tuple(timedelta(seconds=delay) for delay in delays))


WORK = _seconds(5, 20)
"""Generations, cut-outs, exports, imports and variants of published images: no other server is involved."""
FETCHED_IMAGES = _seconds(5, 20, 80)
FILE_DELIVERIES = _seconds(10, 60, 300, 1_800, 7_200, 21_600, 43_200)
"""Ends about 21 hours after the first attempt."""
EMAILS = _seconds(60, 300, 900, 3_600, 14_400, 43_200)
"""Ends about 17 hours after the first attempt. Some servers accept a new sender only after minutes."""
WEBHOOK_MESSAGES = _seconds(5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Ends about three days after the first attempt, as the guide and the contract (`webhooks`) say."""
