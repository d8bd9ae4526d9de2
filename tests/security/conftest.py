"""Fixtures of the security tests: those of the API tests, and rate limits that a test can set."""

from tests.api.conftest import (
    anonymous,
    app,
    client,
    client_for,
    committing_server,
    customer,
    storage,
    superuser,
)
from tests.security.rate_limits import set_limits

__all__ = [
    "anonymous",
    "app",
    "client",
    "client_for",
    "committing_server",
    "customer",
    "set_limits",
    "storage",
    "superuser",
]
