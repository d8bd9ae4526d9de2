"""Helpers for rate limit tests: other limits, a clock that the test sets, and clients at any IP address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.app import Application
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.limits import QuotaPolicies
from studio.rate_limits.memory_store import MemoryStore
from tests.support.client import ClientResponse

NOON = 1_800_000_000_000


@pytest.fixture
def set_limits(application: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Return a function that sets limits and returns a clock, whose `now` (in milliseconds) the test can set.

    The request counts start at 0.
    """
    limits: RateLimiter = application.services.rate_limiter
    clock = SimpleNamespace(now=NOON)
    monkeypatch.setattr(limits, "store", MemoryStore())
    monkeypatch.setattr(limits, "clock", lambda: clock.now)

    def set_limits(**settings: int) -> SimpleNamespace:
        policies = QuotaPolicies.from_settings(replace(application.settings, **settings))
        monkeypatch.setattr(limits, "policies", policies)
        return clock

    return set_limits


class AppFromAddress:
    """The application as a client at this IP address reaches it."""

    def __init__(self, app: Application, address: str) -> None:
        self.app, self.address = app, address

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Forward the request with the client's address."""
        await self.app({**scope, "client": (self.address, 5)}, receive, send)


def exceeded_policy(response: ClientResponse) -> str:
    """Assert that a response is 429, and return the name of the exceeded policy."""
    assert (response.status, response.json()["code"]) == (429, "rate_limited"), response.body
    assert int(response.headers["retry-after"]) > 0
    return str(response.json()["policy"])
