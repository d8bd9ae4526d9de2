"""The real application and somebody who asks it, as the tests of the API have them."""

from tests.api.conftest import app, application, client_of, committed, house, production, storage, superuser
from tests.security.limiting import limited

__all__ = [
    "app",
    "application",
    "client_of",
    "committed",
    "house",
    "limited",
    "production",
    "storage",
    "superuser",
]
