"""Signing in and recovering a password tell nobody which addresses have an account (ASVS V6.3.8)."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from db.models import User
from db.session import Database
from handlers.app import Application
from studio.accounts.identity import passwords
from studio.accounts.identity.passwords import hash_password
from tests.api.conftest import Client
from tests.security.test_attempt_limits import client_at, comparable_response, sign_in
from tests.support import factories
from tests.support.client import ClientResponse

PASSWORD = "a-linen-dress-in-may"
KNOWN, UNKNOWN, INACTIVE = "dana@example.com", "nobody@example.com", "idle@example.com"
ADDRESSES = (KNOWN, UNKNOWN, INACTIVE)
LONG, SHORT = 200, 5


def _sign_in(client: Client, email: str) -> ClientResponse:
    # The inactive account is asked with its own password: that it is right must not show either.
    return sign_in(client, PASSWORD if email == INACTIVE else "wrong", email)


def _recover(client: Client, email: str) -> ClientResponse:
    return client("POST", f"/password-recovery/{email}")


@pytest.fixture
def accounts(database: Database) -> list[User]:
    hashed = hash_password(PASSWORD)
    return [
        factories.make_user(email=email, hashed_password=hashed, is_active=email == KNOWN)
        for email in (KNOWN, INACTIVE)
    ]


@pytest.fixture
def unlimited(set_limits: Callable[..., Any]) -> None:
    """The tries are not what is tested here."""
    set_limits(limit_sign_in_account=10_000, limit_sign_in_address=10_000, limit_recovery_account=10_000)


@pytest.mark.parametrize("ask", [_sign_in, _recover])
def test_s14_known_unknown_and_inactive_addresses_are_answered_alike(
    ask: Callable[[Client, str], ClientResponse],
    unlimited: None,
    app: Application,
    accounts: list[User],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashing = []

    class Counting:
        def verify(self, *arguments: str) -> bool:
            hashing.append(arguments)
            return real.verify(*arguments)

    real = passwords._hasher
    told, cost = [], []
    for number, email in enumerate(ADDRESSES):
        hashing.clear()
        with monkeypatch.context() as patch:
            patch.setattr(passwords, "_hasher", Counting())
            told.append(comparable_response(ask(client_at(app, f"192.0.2.{number}"), email)))
        cost.append(len(hashing))
    assert told[0] == told[1] == told[2]
    assert cost == [1 if ask is _sign_in else 0] * 3


@pytest.mark.parametrize("ask", [_sign_in, _recover])
def test_s14_known_unknown_and_inactive_addresses_take_as_long(
    ask: Callable[[Client, str], ClientResponse],
    unlimited: None,
    app: Application,
    accounts: list[User],
    long_form: bool,
) -> None:
    client = client_at(app, "192.0.2.1")
    spans: dict[str, list[float]] = {email: [] for email in ADDRESSES}
    # In turns, so that a busy moment of the machine falls on all three.
    for _ in range(LONG if long_form else SHORT):
        for email in ADDRESSES:
            start = time.perf_counter()
            ask(client, email)
            spans[email].append(time.perf_counter() - start)
    medians = [median(taken) for taken in spans.values()]
    # A few runs beside other tests only show that nothing is left out; 200 tell a tenth.
    tolerance = 1.1 if long_form else 2
    assert max(medians) / min(medians) < tolerance, medians
