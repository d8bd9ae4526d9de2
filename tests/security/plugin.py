"""Pytest plugin of `make security`: select the numbered tests and count the requests that they send.

It counts calls of the outermost middleware (requests in process) and of the httpx transport (requests to
other processes). It does not count those of the browser, of the fuzzer, and of tests that write to a socket.

Pytest cannot rewrite the assertions of this module, because it is imported earlier, and it has none:
PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator
from typing import Any

import pytest

NUMBERED = re.compile(r"\btest_s(\d\d)_")
REQUESTS = "requests"

_sent = itertools.count()


def _current_count() -> int:
    # The repr shows the next number without consuming it.
    return int(repr(_sent).removeprefix("count(").removesuffix(")"))


def _count_calls(original: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        next(_sent)
        return original(*arguments, **options)

    return call


def pytest_configure() -> None:
    """Replace the two functions that carry requests with counting ones."""
    # Imported here: `make security` imports this module before pytest loads its plugins, and the application
    # imports one of them (anyio), whose assertions pytest could then not rewrite.
    import httpx

    from handlers.pipeline.middleware.observability import ObservabilityMiddleware

    for kind, name in ((ObservabilityMiddleware, "__call__"), (httpx.HTTPTransport, "handle_request")):
        setattr(kind, name, _count_calls(getattr(kind, name)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deselect the tests without a number."""
    items[:] = [item for item in items if NUMBERED.search(item.name)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Report how many requests the test sent, without those of its fixtures."""
    before = _current_count()
    try:
        return (yield)
    finally:
        item.user_properties.append((REQUESTS, _current_count() - before))
