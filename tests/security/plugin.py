"""Keeps the numbered tests and counts the requests they send; `make security` loads it into pytest.

In process every request passes the outermost middleware, and to a server elsewhere httpx carries it. A test
that writes to a socket by itself says so with `sent`. Requests of browser and fuzzer are not counted.
It is imported before pytest could rewrite its assertions, and has none: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator
from typing import Any

import httpx
import pytest

from handlers.pipeline.middleware.observability import ObservabilityMiddleware

NUMBERED = re.compile(r"\btest_s(\d\d)_")
REQUESTS = "requests"

_sent = itertools.count()


def record_requests(number: int = 1) -> None:
    """Count requests that went over a socket of the test's own."""
    for _ in range(number):
        next(_sent)


def _current_count() -> int:
    # What the next number would be; reading it takes none.
    return int(repr(_sent).removeprefix("count(").removesuffix(")"))


def _counted(original: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        record_requests()
        return original(*arguments, **options)

    return call


def pytest_configure() -> None:
    """Begin to count."""
    for kind, name in ((ObservabilityMiddleware, "__call__"), (httpx.HTTPTransport, "handle_request")):
        setattr(kind, name, _counted(getattr(kind, name)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what stands beside the numbered tests in their modules."""
    items[:] = [item for item in items if NUMBERED.search(item.name)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Note with the test how many requests it sent; what its fixtures asked for is not counted."""
    before = _current_count()
    try:
        return (yield)
    finally:
        item.user_properties.append((REQUESTS, _current_count() - before))
