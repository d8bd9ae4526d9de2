"""Sign-in and password recovery do not reveal which e-mail addresses have an account (ASVS V6.3.8)."""

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
    # The inactive account gets its correct password: the response must not reveal that either.
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
    """Raise the limits of sign-in attempts, which are not the subject of these tests."""
    set_limits(limit_sign_in_account=10_000, limit_sign_in_address=10_000, limit_recovery_account=10_000)


@pytest.mark.parametrize("send", [_sign_in, _recover])
def test_s14_responses_for_known_unknown_and_inactive_addresses_are_equal(
    send: Callable[[Client, str], ClientResponse],
    unlimited: None,
    app: Application,
    accounts: list[User],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verifications = []

    class CountingHasher:
        def verify(self, *arguments: str) -> bool:
            verifications.append(arguments)
            return real.verify(*arguments)

    real = passwords._hasher
    outcomes, cost = [], []
    for number, email in enumerate(ADDRESSES):
        verifications.clear()
        with monkeypatch.context() as patch:
            patch.setattr(passwords, "_hasher", CountingHasher())
            outcomes.append(comparable_response(send(client_at(app, f"192.0.2.{number}"), email)))
        cost.append(len(verifications))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert cost == [1 if send is _sign_in else 0] * 3


@pytest.mark.parametrize("send", [_sign_in, _recover])
@pytest.mark.usefixtures("real_password_hashes")
def test_s14_requests_for_known_unknown_and_inactive_addresses_take_the_same_time(
    send: Callable[[Client, str], ClientResponse],
    unlimited: None,
    app: Application,
    accounts: list[User],
    long_form: bool,
) -> None:
    client = client_at(app, "192.0.2.1")
    durations_by_email: dict[str, list[float]] = {email: [] for email in ADDRESSES}
    # Other tests run at the same time as the short form, so it measures CPU time.
    clock = time.perf_counter if long_form else time.process_time
    # Alternate between the addresses, so that a slow moment of the machine affects all three.
    for _ in range(LONG if long_form else SHORT):
        for email in ADDRESSES:
            start = clock()
            send(client, email)
            durations_by_email[email].append(clock() - start)
    medians = [median(durations) for durations in durations_by_email.values()]
    # A few runs only show that no step is skipped; 200 runs can show a difference of 10 %.
    tolerance = 1.1 if long_form else 2
    assert max(medians) / min(medians) < tolerance, medians
