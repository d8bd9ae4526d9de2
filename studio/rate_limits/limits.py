"""The quotas of this installation, and the arithmetic of one count."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import NamedTuple

from pyrate_limiter import GCRA, Decision, Rate

from studio.infrastructure.settings import Settings

MINUTE, FIFTEEN_MINUTES, HOUR, DAY = 60, 900, 3600, 86_400

ALGORITHM = GCRA()


@dataclass(frozen=True)
class QuotaPolicy:
    """A limit: `quota` units can be used at once, and refill within `window` seconds."""

    name: str
    quota: int
    window: int

    @cached_property
    def rates(self) -> list[Rate]:
        """The limit in the form of the algorithm, in milliseconds."""
        return [Rate(self.quota, self.window * 1000)]

    def consume(self, state: int, now: int) -> tuple[int, LimitUsage]:
        """Take one unit from a count, unless none is left.

        Args:
            state: The count: the time, in microseconds since 1970, at which the whole quota is available
                again.
            now: The time in milliseconds since 1970.

        Returns:
            The new count and the usage.
        """
        # A count is never later than this, unless the clock was set back: the client would wait as long.
        state = min(state, now * 1000 + self.quota * self.emission_interval)
        states, decision = ALGORITHM.step(self.rates, (state,), now, 1)
        return int(states[0]), self.get_usage(int(states[0]), now, decision)

    def get_usage(self, state: int, now: int, decision: Decision) -> LimitUsage:
        """Return the usage of a count after a decision of the algorithm."""
        used = ALGORITHM.consumed(self.rates, (state,), now)
        # The time until the next unit. Units come back one by one; at `state` the last one is back.
        wait = state - now * 1000 - max(0, used - 1) * self.emission_interval
        if not decision.allowed:
            wait = (decision.retry_after_ms or 1) * 1000
        return LimitUsage(self, max(0, self.quota - used), max(0, ceil(wait / 1_000_000)), decision.allowed)

    @cached_property
    def emission_interval(self) -> int:
        """Microseconds until one unit refills, rounded as in the algorithm."""
        return max(1, ceil(self.window * 1_000_000 / self.quota))


class NamedLimit(NamedTuple):
    """A rate limit, and the name that it counts."""

    policy: QuotaPolicy
    name: str


@dataclass(frozen=True)
class LimitUsage:
    """What is left of a limit: the units, and the seconds until one more is available."""

    policy: QuotaPolicy
    remaining: int
    reset_seconds: int
    allowed: bool


@dataclass(frozen=True)
class QuotaPolicies:
    """All limits of this installation."""

    account: QuotaPolicy
    key: QuotaPolicy
    organization: QuotaPolicy
    guests: QuotaPolicy
    guest_sessions: QuotaPolicy
    public_images: QuotaPolicy
    address: QuotaPolicy
    sign_in_account: QuotaPolicy
    sign_in_address: QuotaPolicy
    recovery_account: QuotaPolicy
    mails: QuotaPolicy
    account_exports: QuotaPolicy

    @classmethod
    def from_settings(cls, settings: Settings) -> QuotaPolicies:
        """Return the limits of these settings."""
        return cls(
            QuotaPolicy("account", settings.limit_account, MINUTE),
            QuotaPolicy("key", settings.limit_key, MINUTE),
            QuotaPolicy("organization", settings.limit_organization, MINUTE),
            # The other half stays for members, whatever guests do.
            QuotaPolicy("guests", max(1, settings.limit_organization // 2), MINUTE),
            QuotaPolicy("guest-sessions", settings.limit_guest_sessions, FIFTEEN_MINUTES),
            QuotaPolicy("public-images", settings.limit_public_images, MINUTE),
            QuotaPolicy("address", settings.limit_address, MINUTE),
            QuotaPolicy("sign-in-account", settings.limit_sign_in_account, FIFTEEN_MINUTES),
            QuotaPolicy("sign-in-address", settings.limit_sign_in_address, FIFTEEN_MINUTES),
            QuotaPolicy("recovery-account", settings.limit_recovery_account, HOUR),
            QuotaPolicy("mails", settings.limit_mails, HOUR),
            QuotaPolicy("account-exports", settings.limit_account_exports, DAY),
        )
