"""The limits of one server: what everybody may ask, and where it is counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from anyio import to_thread

from studio.limits.counters import Counters, MemoryCounters
from studio.limits.policies import Policies, Policy, Standing
from studio.settings import Settings


def now_in_milliseconds() -> int:
    """The time since 1970, which processes on several machines share."""
    return time.time_ns() // 1_000_000


class Limits:
    """Counts requests; `clock` gives milliseconds."""

    def __init__(
        self, policies: Policies, counters: Counters, clock: Callable[[], int] = now_in_milliseconds
    ) -> None:
        self.policies, self.counters, self.clock = policies, counters, clock

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The limits that the settings want, counted in Redis where there is one."""
        return cls(Policies.from_settings(settings), _counters(settings.celery_broker_url))

    def spend(self, policy: Policy, subject: str) -> Standing:
        """Take one unit of what `subject` has; to be called in a thread."""
        return self.counters.spend(policy, subject, self.clock())

    async def spend_on_loop(self, policy: Policy, subject: str) -> Standing:
        """Do the same on an event loop, which it never holds up."""
        if self.counters.may_wait:
            return await to_thread.run_sync(self.spend, policy, subject)
        return self.spend(policy, subject)


def _counters(url: str | None) -> Counters:
    if url is None:
        return MemoryCounters()
    # Here, because a server without Redis need not load its client.
    from studio.limits.shared_counters import SharedCounters

    return SharedCounters(url)
