"""The mini contract, served once per test module that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.mini.asking import Reply, ask
from tests.contract.mini.server import RememberingDatabase, mini_app, token


@pytest.fixture(scope="session")
def mini() -> Iterator[Any]:
    """The engine serving the mini contract."""
    app = mini_app()
    yield app
    app.bridge.pool.shutdown()


@pytest.fixture(scope="session")
def call(mini: Any) -> Callable[..., Reply]:
    """Ask the mini contract with a valid token: `call(method, target, headers, body=..., as_json=...)`."""
    bearer = {"authorization": f"Bearer {token()}"}

    def ask_it(method: str, target: str, headers: dict[str, str] | None = None, **body: Any) -> Reply:
        return ask(mini, method, f"/api/v1{target}", {**bearer, **(headers or {})}, **body)

    return ask_it


@pytest.fixture
def ends(mini: Any) -> list[str]:
    """How the transactions of this test ended."""
    database: RememberingDatabase = mini.database
    database.ends.clear()
    return database.ends
