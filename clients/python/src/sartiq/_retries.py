"""Decide whether a request is sent again, and when. It sends nothing and never sleeps."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx2

from sartiq._call import Call
from sartiq.errors import APIError

FIRST_DELAY = 0.5
LONGEST_DELAY = 8.0
# The server executed nothing, so that every request can be sent again.
NOT_EXECUTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
UNAVAILABLE = frozenset({502, 503, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request is sent again, and the longest `Retry-After` that the client waits for."""

    max_retries: int = 4
    max_retry_after: float = 60.0

    def after_error(self, call: Call, attempt: int, error: httpx2.TransportError) -> float | None:
        """Return the seconds until the next attempt after a connection error; None if there is none.

        Args:
            attempt: Number of this attempt, from 0.
        """
        if attempt >= self.max_retries or not (call.may_repeat or isinstance(error, NOT_EXECUTED)):
            return None
        if isinstance(error, httpx2.UnsupportedProtocol):
            return None
        return backoff(attempt)

    def after_response(self, call: Call, attempt: int, error: APIError) -> float | None:
        """Return the seconds until the next attempt after a problem; None if there is none."""
        if attempt >= self.max_retries:
            return None
        in_progress = error.status == 409 and error.code == "idempotency_key_in_progress"
        # A request beyond a limit was not executed. One that is unavailable may have been.
        if error.status != 429 and not in_progress and not (error.status in UNAVAILABLE and call.may_repeat):
            return None
        asked = read_retry_after(error.headers)
        if asked is None:
            return backoff(attempt)
        # A later time than the server asks for, so that many clients do not return at once.
        return asked + random.uniform(0, min(1.0, asked / 4)) if asked <= self.max_retry_after else None  # noqa: S311 - not a secret


def backoff(attempt: int) -> float:
    """Return a random delay whose mean doubles with each attempt."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
    return random.uniform(longest / 2, longest)  # noqa: S311 - not a secret


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of `Retry-After`, which is a number or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until - dt.datetime.now(dt.UTC)).total_seconds())
