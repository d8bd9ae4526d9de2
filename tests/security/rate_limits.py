"""Other limits than the application of the tests has, a clock that the test moves, and callers everywhere."""

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
    """Let the application have other limits, fresh counts and a clock that the test moves."""
    limits: RateLimiter = application.app.config["LIMITS"]
    clock = SimpleNamespace(now=NOON)
    monkeypatch.setattr(limits, "store", MemoryStore())
    monkeypatch.setattr(limits, "clock", lambda: clock.now)

    def set_limits(**settings: int) -> SimpleNamespace:
        policies = QuotaPolicies.from_settings(replace(application.settings, **settings))
        monkeypatch.setattr(limits, "policies", policies)
        return clock

    return set_limits


class AppFromAddress:
    """The application as somebody at this address reaches it."""

    def __init__(self, app: Application, address: str) -> None:
        self.app, self.address = app, address

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass the request on."""
        await self.app({**scope, "client": (self.address, 5)}, receive, send)


def exceeded_policy(reply: ClientResponse) -> str:
    """Return the name of the limit that refused a request."""
    assert (reply.status, reply.json()["code"]) == (429, "rate_limited"), reply.body
    assert int(reply.headers["retry-after"]) > 0
    return str(reply.json()["policy"])
