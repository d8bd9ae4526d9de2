"""Fixtures of the security tests: those of the API tests, and rate limits that a test can set."""

from tests.api.conftest import (
    app,
    client_for,
    committing_server,
    customer,
    scenario,
    storage,
    superuser,
)
from tests.security.rate_limits import set_limits

__all__ = [
    "app",
    "client_for",
    "committing_server",
    "customer",
    "scenario",
    "set_limits",
    "storage",
    "superuser",
]
