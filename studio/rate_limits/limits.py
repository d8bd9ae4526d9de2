"""The limits of this installation, and how somebody stands with one of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from pyrate_limiter import GCRA, Decision, Rate

from studio.settings import Settings

MINUTE, FIFTEEN_MINUTES, HOUR = 60, 900, 3600

ALGORITHM = GCRA()


@dataclass(frozen=True)
class QuotaPolicy:
    """A limit: `quota` units can be spent at once, and grow again within `window` seconds."""

    name: str
    quota: int
    window: int

    @cached_property
    def rates(self) -> list[Rate]:
        """The limit as the algorithm wants it; its unit of time is the millisecond."""
        return [Rate(self.quota, self.window * 1000)]

    def consume(self, state: int, now: int) -> tuple[int, LimitUsage]:
        """Take one unit at `now` (milliseconds) from a count; give the new count and how things stand then.

        A count is the microsecond at which nothing will be spent any more. Without a unit left it stays.
        """
        states, decision = ALGORITHM.step(self.rates, (state,), now, 1)
        return int(states[0]), self.get_usage(int(states[0]), now, decision)

    def get_usage(self, state: int, now: int, decision: Decision) -> LimitUsage:
        """How things stand with a count after a decision."""
        spent = ALGORITHM.consumed(self.rates, (state,), now)
        # Until the next unit: what is spent comes back one by one, the last one when all the others have.
        wait = state - now * 1000 - max(0, spent - 1) * self.emission_interval
        if not decision.allowed:
            wait = (decision.retry_after_ms or 1) * 1000
        return LimitUsage(self, max(0, self.quota - spent), max(0, ceil(wait / 1_000_000)), decision.allowed)

    @property
    def emission_interval(self) -> int:
        """Microseconds in which one unit grows, as the algorithm rounds them."""
        return max(1, ceil(self.window * 1_000_000 / self.quota))


@dataclass(frozen=True)
class LimitUsage:
    """What is left of a limit after a request: units, and seconds until there is one more."""

    policy: QuotaPolicy
    remaining: int
    reset_seconds: int
    allowed: bool


@dataclass(frozen=True)
class QuotaPolicies:
    """Every limit of this installation."""

    account: QuotaPolicy
    key: QuotaPolicy
    organization: QuotaPolicy
    address: QuotaPolicy
    sign_in_account: QuotaPolicy
    sign_in_address: QuotaPolicy
    recovery_account: QuotaPolicy
    mails: QuotaPolicy

    @classmethod
    def from_settings(cls, settings: Settings) -> QuotaPolicies:
        """The limits that the settings want."""
        return cls(
            QuotaPolicy("account", settings.limit_account, MINUTE),
            QuotaPolicy("key", settings.limit_key, MINUTE),
            QuotaPolicy("organization", settings.limit_organization, MINUTE),
            QuotaPolicy("address", settings.limit_address, MINUTE),
            QuotaPolicy("sign-in-account", settings.limit_sign_in_account, FIFTEEN_MINUTES),
            QuotaPolicy("sign-in-address", settings.limit_sign_in_address, FIFTEEN_MINUTES),
            QuotaPolicy("recovery-account", settings.limit_recovery_account, HOUR),
            QuotaPolicy("mails", settings.limit_mails, HOUR),
        )
