"""The middleware stack has the order that its package documents."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest

import handlers.pipeline.middleware
from handlers.app import Application
from tests.contract.mini.server import create_mini_app

CONNEXION = "connexion.middleware"


def documented_order() -> list[str]:
    """Return the first column of the table: a module, a class of it, or a class of Connexion."""
    rows = re.findall(r"^\| \(?`([^`]+)`\)? \|", handlers.pipeline.middleware.__doc__ or "", re.MULTILINE)
    return [str(row) for row in rows]


def actual_order(app: Application) -> list[str]:
    """Return the stack of an application in the notation of the table."""
    documented = set(documented_order())
    names = []
    for middleware in app.middleware.middlewares:
        cls: Any = middleware.func if isinstance(middleware, partial) else middleware
        package, _, module = cls.__module__.rpartition(".")
        qualified = f"{module}.{cls.__name__}"
        if package.startswith(CONNEXION):
            names.append(cls.__name__)
        else:
            names.append(qualified if qualified in documented else module)
    return names


@pytest.mark.parametrize(("mode", "absent"), [("mock", set()), ("live", {"mock_control", "mock_responses"})])
def test_the_middleware_stack_has_the_documented_order(mode: str, absent: set[str]) -> None:
    app = create_mini_app(mode=mode)
    assert actual_order(app) == [name for name in documented_order() if name not in absent]
    app.bridge.pool.shutdown()
