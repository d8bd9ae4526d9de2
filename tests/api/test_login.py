"""Login, logout, refresh tokens and password recovery, through the API."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from urllib.parse import quote

import jwt
import pytest
from argon2 import PasswordHasher
from sqlalchemy import Executable, delete, select, update

from db.base import utc_now
from db.models import PasswordResetToken, TokenFamily, User
from db.session import Database, current_session
from handlers.app import Application
from handlers.pipeline.auth import AUDIENCE
from studio.accounts.identity import sessions
from studio.accounts.identity.passwords import hash_password, verify_password
from studio.accounts.identity.recovery import MIN_SECONDS
from tests.api.conftest import Client, CommittingServer
from tests.support import auth, factories
from tests.support.auth import assert_unauthorized, get_token_owner, refresh
from tests.support.client import ClientResponse
from tests.support.concurrency import run_concurrently
from tests.support.mailbox import get_mailed_token, list_emails_to

PASSWORD = "päss wörd 🔑 & % =+"


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email="dana@example.com", hashed_password=hash_password(PASSWORD))


def sign_in(
    client: Client, username: str = "dana@example.com", password: str = PASSWORD, **fields: str
) -> ClientResponse:
    return auth.sign_in(client, username, password, **fields)


def get_recovery_token(app: Application, to: str) -> str:
    return get_mailed_token(app, to, "pr")


def test_signing_in_returns_a_token_pair_that_must_not_be_cached(anonymous: Client, user: User) -> None:
    response = sign_in(anonymous, grant_type="password", scope="", client_id="web", client_secret="none")
    tokens = response.json()
    assert (response.status, response.headers["cache-control"]) == (200, "no-store")
    assert tokens == {
        "access_token": tokens["access_token"],
        "token_type": "bearer",
        "expires_in": 3600,
        "refresh_token": tokens["refresh_token"],
    }
    assert get_token_owner(anonymous, tokens["access_token"]).json()["email"] == "dana@example.com"


def test_the_access_token_is_a_jwt_for_the_user_that_expires_after_an_hour(
    app: Application, anonymous: Client, user: User
) -> None:
    tokens = [sign_in(anonymous).json()["access_token"] for _ in range(2)]
    claims = [
        jwt.decode(token, app.settings.secret_key, algorithms=["HS256"], audience=AUDIENCE)
        for token in tokens
    ]
    assert claims[0]["iss"] == "sartiq"
    assert claims[0]["sub"] == str(user.id)
    assert claims[0]["type"] == "access"
    assert claims[0]["exp"] - claims[0]["iat"] == 3600
    assert claims[0]["jti"] != claims[1]["jti"]
    assert claims[0]["sid"] != claims[1]["sid"]


def test_the_email_address_is_case_insensitive(anonymous: Client, user: User) -> None:
    assert sign_in(anonymous, "DANA@Example.COM").status == 200


@pytest.mark.parametrize(
    ("username", "password"),
    [("dana@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("' OR 1=1 --", "x")],
)
def test_a_wrong_password_and_an_unknown_address_return_the_same_error(
    anonymous: Client, user: User, username: str, password: str
) -> None:
    assert_unauthorized(sign_in(anonymous, username, password), "Incorrect email or password")


def test_a_locked_account_returns_the_same_error_as_a_wrong_password(anonymous: Client, user: User) -> None:
    user.is_active = False
    factories.make(user)
    assert_unauthorized(sign_in(anonymous), "Incorrect email or password")


@pytest.mark.parametrize(
    "change",
    [
        delete(User),
        update(User).values(hashed_password=hash_password("a-woollen-coat")),
        update(User).values(is_active=False),
        update(User).values(email_key="another@example.com"),
    ],
    ids=["deleted", "password changed", "locked", "email changed"],
)
def test_s16_an_account_that_changes_during_the_password_check_gets_no_session(
    anonymous: Client, user: User, database: Database, monkeypatch: pytest.MonkeyPatch, change: Executable
) -> None:
    def verify(hashed: str | None, password: str) -> bool:
        is_correct = verify_password(hashed, password)
        current_session().connection().execute(change)
        return is_correct

    monkeypatch.setattr(sessions, "verify_password", verify)
    assert_unauthorized(sign_in(anonymous), "Incorrect email or password")
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(TokenFamily)).all() == []


def test_signing_in_rehashes_the_password_with_the_current_parameters(
    anonymous: Client, user: User, real_password_hashes: None
) -> None:
    user.hashed_password = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash(PASSWORD)
    factories.make(user)
    assert sign_in(anonymous).status == 200
    factories.make(user)
    assert user.hashed_password.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_refresh_token_is_exchanged_for_a_new_pair(anonymous: Client, user: User) -> None:
    first = sign_in(anonymous).json()
    response = refresh(anonymous, first["refresh_token"])
    second = response.json()
    assert (response.status, response.headers["cache-control"]) == (200, "no-store")
    assert second["refresh_token"] != first["refresh_token"]
    assert get_token_owner(anonymous, second["access_token"]).status == 200
    assert refresh(anonymous, second["refresh_token"]).status == 200


def test_an_unknown_refresh_token_is_rejected(anonymous: Client, user: User) -> None:
    assert_unauthorized(refresh(anonymous, "rt_0Zl1n2c3"))


def test_an_access_token_does_not_outlive_its_session(
    anonymous: Client, user: User, database: Database
) -> None:
    tokens = sign_in(anonymous).json()
    with database.transaction(write=True) as opened:
        opened.execute(update(TokenFamily).values(expires_at=utc_now() + timedelta(seconds=100)))
    assert 90 < refresh(anonymous, tokens["refresh_token"]).json()["expires_in"] <= 100


def test_signing_out_ends_only_the_current_session(anonymous: Client, user: User) -> None:
    current, other = sign_in(anonymous).json(), sign_in(anonymous).json()
    header = {"authorization": f"Bearer {current['access_token']}"}
    response = anonymous("POST", "/logout", headers=header)
    assert (response.status, response.body) == (204, b"")
    assert_unauthorized(get_token_owner(anonymous, current["access_token"]))
    assert_unauthorized(refresh(anonymous, current["refresh_token"]))
    assert get_token_owner(anonymous, other["access_token"]).status == 200


def test_locking_an_account_invalidates_its_tokens(anonymous: Client, user: User) -> None:
    tokens = sign_in(anonymous).json()
    user.is_active = False
    factories.make(user)
    assert_unauthorized(get_token_owner(anonymous, tokens["access_token"]))
    assert_unauthorized(refresh(anonymous, tokens["refresh_token"]))


def test_signing_in_deletes_the_expired_sessions_of_the_account(
    anonymous: Client, user: User, database: Database
) -> None:
    other = factories.make(TokenFamily(user_id=factories.make_user().id, expires_at=utc_now()))
    expired = factories.make(TokenFamily(user_id=user.id, expires_at=utc_now()))
    assert sign_in(anonymous).status == 200
    with database.transaction(write=False) as reading:
        kept = set(reading.scalars(select(TokenFamily.id)))
    assert (len(kept), expired.id in kept, other.id in kept) == (2, False, True)


def test_refresh_tokens_are_not_stored_in_plain_text(
    anonymous: Client, user: User, database: Database
) -> None:
    tokens = sign_in(anonymous).json()
    with database.transaction(write=False) as opened:
        rows = opened.connection().exec_driver_sql("SELECT * FROM refresh_tokens").all()
        family = opened.scalars(select(TokenFamily)).one()
    assert tokens["refresh_token"] not in str(rows)
    assert family.user_id == user.id


def test_recovery_returns_the_same_response_for_known_and_unknown_addresses(
    app: Application, anonymous: Client, user: User
) -> None:
    known = anonymous("POST", "/password-recovery/DANA@example.com")
    unknown = anonymous("POST", "/password-recovery/nobody@example.com")
    assert (known.status, known.json()) == (200, unknown.json())
    assert (unknown.status, set(known.json())) == (200, {"message"})
    assert list_emails_to(app, "dana@example.com")
    assert not list_emails_to(app, "nobody@example.com")


@pytest.mark.parametrize(
    "address", [".@a.b", "a..b@c.d", "a|b@-.-", "x" * 64 + "@a.b", "#!$%*+=^_`{|}~.-@a.b"]
)
def test_unusual_addresses_cause_no_server_error(anonymous: Client, address: str) -> None:
    response = anonymous("POST", f"/password-recovery/{quote(address, safe='@')}")
    assert response.status in (200, 422), response.body
    assert b"internal_error" not in response.body


def test_recovery_takes_a_minimum_time_for_known_and_unknown_addresses(anonymous: Client, user: User) -> None:
    durations = []
    for address in ("dana@example.com", "nobody@example.com"):
        start = time.perf_counter()
        anonymous("POST", f"/password-recovery/{address}")
        durations.append(time.perf_counter() - start)
    assert min(durations) >= MIN_SECONDS


def test_a_mailed_token_sets_a_password_once_and_ends_all_sessions(
    app: Application, anonymous: Client, user: User
) -> None:
    tokens = sign_in(anonymous).json()
    anonymous("POST", "/password-recovery/dana@example.com")
    change = {"token": get_recovery_token(app, "dana@example.com"), "new_password": "a-linen-dress-in-may"}
    response = anonymous("POST", "/reset-password/", change)
    assert (response.status, response.json()) == (200, {"message": "Password changed"})
    assert_unauthorized(get_token_owner(anonymous, tokens["access_token"]))
    assert_unauthorized(sign_in(anonymous), "Incorrect email or password")
    assert sign_in(anonymous, password="a-linen-dress-in-may").status == 200
    assert_unauthorized(anonymous("POST", "/reset-password/", change))


def test_using_a_recovery_token_invalidates_the_other_ones(
    app: Application, anonymous: Client, user: User
) -> None:
    tokens = []
    for _ in range(2):
        anonymous("POST", "/password-recovery/dana@example.com")
        tokens.append(get_recovery_token(app, "dana@example.com"))
    assert tokens[0] != tokens[1]
    outcomes = [
        anonymous("POST", "/reset-password/", {"token": token, "new_password": "a-linen-dress"}).status
        for token in tokens
    ]
    assert outcomes == [200, 401]


def test_s16_one_of_two_concurrent_recovery_tokens_sets_the_password(
    committing_server: CommittingServer, application: Application
) -> None:
    anonymous, tokens = Client(application), []
    for _ in range(2):
        anonymous("POST", f"/password-recovery/{committing_server.scenario.owner.email}")
        tokens.append(get_recovery_token(application, committing_server.scenario.owner.email))

    def use_token(token: str) -> int:
        change = {"token": token, "new_password": "a-linen-dress-in-may"}
        return anonymous("POST", "/reset-password/", change).status

    assert sorted(run_concurrently(*[partial(use_token, token) for token in tokens])) == [200, 401]


@pytest.mark.parametrize("reaction", ["password changed", "email changed by a superuser"])
def test_s16_changing_password_or_email_invalidates_mailed_recovery_tokens(
    app: Application, anonymous: Client, user: User, client_for: Callable[..., Client], reaction: str
) -> None:
    anonymous("POST", "/password-recovery/dana@example.com")
    client, superuser_client = client_for(user), client_for(factories.make_user(is_superuser=True))
    body = {"current_password": PASSWORD, "new_password": "a-woollen-coat"}
    done = {
        "password changed": lambda: client("PATCH", "/users/me/password", body),
        "email changed by a superuser": lambda: superuser_client(
            "PATCH", f"/users/{user.id}", {"email": "dana@example.org"}
        ),
    }[reaction]()
    assert done.status == 200, done.body
    change = {"token": get_recovery_token(app, "dana@example.com"), "new_password": "a-linen-dress-in-may"}
    assert_unauthorized(anonymous("POST", "/reset-password/", change))


def test_a_recovery_token_expires_after_an_hour(
    app: Application, anonymous: Client, user: User, database: Database
) -> None:
    anonymous("POST", "/password-recovery/dana@example.com")
    with database.transaction(write=True) as opened:
        token = opened.scalars(select(PasswordResetToken)).one()
        assert timedelta(minutes=59) < token.expires_at - utc_now() <= timedelta(hours=1)
        opened.execute(update(PasswordResetToken).values(expires_at=utc_now()))
    change = {"token": get_recovery_token(app, "dana@example.com"), "new_password": "a-linen-dress"}
    assert_unauthorized(anonymous("POST", "/reset-password/", change))


def test_s16_a_locked_account_cannot_use_a_recovery_token_mailed_before_the_lock(
    app: Application, anonymous: Client, user: User
) -> None:
    anonymous("POST", "/password-recovery/dana@example.com")
    user.is_active = False
    factories.make(user)
    change = {"token": get_recovery_token(app, "dana@example.com"), "new_password": "a-linen-dress"}
    assert_unauthorized(anonymous("POST", "/reset-password/", change))
    user.is_active = True
    factories.make(user)
    assert sign_in(anonymous).status == 200


def test_the_next_recovery_request_deletes_expired_recovery_tokens(
    anonymous: Client, user: User, database: Database
) -> None:
    anonymous("POST", "/password-recovery/dana@example.com")
    with database.transaction(write=True) as opened:
        opened.execute(update(PasswordResetToken).values(expires_at=utc_now()))
    anonymous("POST", "/password-recovery/nobody@example.com")
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(PasswordResetToken)).all() == []


def test_a_locked_account_gets_no_recovery_email(app: Application, anonymous: Client) -> None:
    factories.make_user(email="locked@example.com", is_active=False)
    assert anonymous("POST", "/password-recovery/locked@example.com").status == 200
    assert not list_emails_to(app, "locked@example.com")
