"""Login, logout, refresh tokens and password recovery, through the API."""

from __future__ import annotations

import email
import email.policy
import re
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
from db.session import Database
from db.session import current_session as running
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

PASSWORD = "päss wörd 🔑 & % =+"


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email="dana@example.com", hashed_password=hash_password(PASSWORD))


@pytest.fixture
def anonymous(client_for: Callable[..., Client]) -> Client:
    return client_for(None)


def sign_in(
    client: Client, username: str = "dana@example.com", password: str = PASSWORD, **fields: str
) -> ClientResponse:
    return auth.sign_in(client, username, password, **fields)


def list_emails(app: Application, to: str) -> list[str]:
    found = []
    for path in sorted(app.settings.outbox_dir.glob("*.eml")):
        letter = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if letter["To"] == to:
            found.append(letter.get_content())
    return found


def get_recovery_token(app: Application, to: str) -> str:
    found = re.search(r"^(pr_\S+)\s*$", list_emails(app, to)[-1], re.MULTILINE)
    assert found
    return found[1]


def test_signing_in_gives_a_token_pair_that_nobody_may_store(anonymous: Client, user: User) -> None:
    reply = sign_in(anonymous, grant_type="password", scope="", client_id="web", client_secret="none")
    tokens = reply.json()
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    assert tokens == {
        "access_token": tokens["access_token"],
        "token_type": "bearer",
        "expires_in": 3600,
        "refresh_token": tokens["refresh_token"],
    }
    assert get_token_owner(anonymous, tokens["access_token"]).json()["email"] == "dana@example.com"


def test_the_access_token_is_a_jwt_with_our_claims(app: Application, anonymous: Client, user: User) -> None:
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


def test_the_address_is_found_in_any_letter_case(anonymous: Client, user: User) -> None:
    assert sign_in(anonymous, "DANA@Example.COM").status == 200


@pytest.mark.parametrize(
    ("username", "password"),
    [("dana@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("' OR 1=1 --", "x")],
)
def test_wrong_passwords_and_unknown_addresses_are_answered_alike(
    anonymous: Client, user: User, username: str, password: str
) -> None:
    assert_unauthorized(sign_in(anonymous, username, password), "Incorrect email or password")


def test_a_locked_account_is_answered_like_a_wrong_password(anonymous: Client, user: User) -> None:
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
    ids=["deleted", "with another password", "locked", "of another address"],
)
def test_s16_an_account_that_changed_while_its_password_was_checked_gets_no_session(
    anonymous: Client, user: User, database: Database, monkeypatch: pytest.MonkeyPatch, change: Executable
) -> None:
    def verify(hashed: str | None, password: str) -> bool:
        is_right = verify_password(hashed, password)
        running().connection().execute(change)
        return is_right

    monkeypatch.setattr(sessions, "verify_password", verify)
    assert_unauthorized(sign_in(anonymous), "Incorrect email or password")
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(TokenFamily)).all() == []


def test_an_old_hash_is_renewed_with_the_parameters_of_today(anonymous: Client, user: User) -> None:
    user.hashed_password = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash(PASSWORD)
    factories.make(user)
    assert sign_in(anonymous).status == 200
    factories.make(user)
    assert user.hashed_password.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_refresh_token_is_spent_for_a_new_pair(anonymous: Client, user: User) -> None:
    first = sign_in(anonymous).json()
    reply = refresh(anonymous, first["refresh_token"])
    second = reply.json()
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    assert second["refresh_token"] != first["refresh_token"]
    assert get_token_owner(anonymous, second["access_token"]).status == 200
    assert refresh(anonymous, second["refresh_token"]).status == 200


def test_an_unknown_refresh_token_is_refused(anonymous: Client, user: User) -> None:
    assert_unauthorized(refresh(anonymous, "rt_0Zl1n2c3"))


def test_an_access_token_does_not_outlive_its_session(
    anonymous: Client, user: User, database: Database
) -> None:
    tokens = sign_in(anonymous).json()
    with database.transaction(write=True) as opened:
        opened.execute(update(TokenFamily).values(expires_at=utc_now() + timedelta(seconds=100)))
    assert 90 < refresh(anonymous, tokens["refresh_token"]).json()["expires_in"] <= 100


def test_signing_out_ends_the_session_at_once_and_no_other(anonymous: Client, user: User) -> None:
    mine, other = sign_in(anonymous).json(), sign_in(anonymous).json()
    header = {"authorization": f"Bearer {mine['access_token']}"}
    reply = anonymous("POST", "/logout", headers=header)
    assert (reply.status, reply.body) == (204, b"")
    assert_unauthorized(get_token_owner(anonymous, mine["access_token"]))
    assert_unauthorized(refresh(anonymous, mine["refresh_token"]))
    assert get_token_owner(anonymous, other["access_token"]).status == 200


def test_a_locked_account_is_out_at_once(anonymous: Client, user: User) -> None:
    tokens = sign_in(anonymous).json()
    user.is_active = False
    factories.make(user)
    assert_unauthorized(get_token_owner(anonymous, tokens["access_token"]))
    assert_unauthorized(refresh(anonymous, tokens["refresh_token"]))


def test_sessions_that_ended_long_ago_go_with_the_next_sign_in_of_their_account(
    anonymous: Client, user: User, database: Database
) -> None:
    other = factories.make(TokenFamily(user_id=factories.make_user().id, expires_at=utc_now()))
    over = factories.make(TokenFamily(user_id=user.id, expires_at=utc_now()))
    assert sign_in(anonymous).status == 200
    with database.transaction(write=False) as reading:
        kept = set(reading.scalars(select(TokenFamily.id)))
    assert (len(kept), over.id in kept, other.id in kept) == (2, False, True)


def test_secrets_are_stored_as_hashes_only(anonymous: Client, user: User, database: Database) -> None:
    tokens = sign_in(anonymous).json()
    with database.transaction(write=False) as opened:
        rows = opened.connection().exec_driver_sql("SELECT * FROM refresh_tokens").all()
        family = opened.scalars(select(TokenFamily)).one()
    assert tokens["refresh_token"] not in str(rows)
    assert family.user_id == user.id


def test_recovery_says_the_same_for_known_and_unknown_addresses(
    app: Application, anonymous: Client, user: User
) -> None:
    known = anonymous("POST", "/password-recovery/DANA@example.com")
    unknown = anonymous("POST", "/password-recovery/nobody@example.com")
    assert (known.status, known.json()) == (200, unknown.json())
    assert (unknown.status, set(known.json())) == (200, {"message"})
    assert list_emails(app, "dana@example.com")
    assert not list_emails(app, "nobody@example.com")


@pytest.mark.parametrize(
    "address", [".@a.b", "a..b@c.d", "a|b@-.-", "x" * 64 + "@a.b", "#!$%*+=^_`{|}~.-@a.b"]
)
def test_odd_addresses_that_the_contract_allows_do_no_harm(anonymous: Client, address: str) -> None:
    reply = anonymous("POST", f"/password-recovery/{quote(address, safe='@')}")
    assert reply.status in (200, 422), reply.body
    assert b"internal_error" not in reply.body


def test_recovery_takes_as_long_for_an_unknown_address(anonymous: Client, user: User) -> None:
    spans = []
    for address in ("dana@example.com", "nobody@example.com"):
        start = time.perf_counter()
        anonymous("POST", f"/password-recovery/{address}")
        spans.append(time.perf_counter() - start)
    assert min(spans) >= MIN_SECONDS


def test_a_mailed_token_sets_a_password_once_and_ends_all_sessions(
    app: Application, anonymous: Client, user: User
) -> None:
    tokens = sign_in(anonymous).json()
    anonymous("POST", "/password-recovery/dana@example.com")
    change = {"token": get_recovery_token(app, "dana@example.com"), "new_password": "a-linen-dress-in-may"}
    reply = anonymous("POST", "/reset-password/", change)
    assert (reply.status, reply.json()) == (200, {"message": "Password changed"})
    assert_unauthorized(get_token_owner(anonymous, tokens["access_token"]))
    assert_unauthorized(sign_in(anonymous), "Incorrect email or password")
    assert sign_in(anonymous, password="a-linen-dress-in-may").status == 200
    assert_unauthorized(anonymous("POST", "/reset-password/", change))


def test_a_used_recovery_token_takes_the_other_ones_with_it(
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


def test_s16_of_two_recovery_tokens_at_once_one_sets_the_password(
    committing_server: CommittingServer, application: Application
) -> None:
    anybody, tokens = Client(application), []
    for _ in range(2):
        anybody("POST", f"/password-recovery/{committing_server.scenario.owner.email}")
        tokens.append(get_recovery_token(application, committing_server.scenario.owner.email))

    def spend(token: str) -> int:
        change = {"token": token, "new_password": "a-linen-dress-in-may"}
        return anybody("POST", "/reset-password/", change).status

    assert sorted(run_concurrently(*[partial(spend, token) for token in tokens])) == [200, 401]


@pytest.mark.parametrize("reaction", ["a new password", "an address that a superuser set"])
def test_s16_changing_password_or_email_invalidates_mailed_recovery_tokens(
    app: Application, anonymous: Client, user: User, client_for: Callable[..., Client], reaction: str
) -> None:
    anonymous("POST", "/password-recovery/dana@example.com")
    client, root = client_for(user), client_for(factories.make_user(is_superuser=True))
    body = {"current_password": PASSWORD, "new_password": "a-woollen-coat"}
    done = {
        "a new password": lambda: client("PATCH", "/users/me/password", body),
        "an address that a superuser set": lambda: root(
            "PATCH", f"/users/{user.id}", {"email": "dana@example.org"}
        ),
    }[reaction]()
    assert done.status == 200, done.body
    change = {"token": get_recovery_token(app, "dana@example.com"), "new_password": "a-linen-dress-in-may"}
    assert_unauthorized(anonymous("POST", "/reset-password/", change))


def test_a_recovery_token_is_too_old_after_an_hour(
    app: Application, anonymous: Client, user: User, database: Database
) -> None:
    anonymous("POST", "/password-recovery/dana@example.com")
    with database.transaction(write=True) as opened:
        made = opened.scalars(select(PasswordResetToken)).one()
        assert timedelta(minutes=59) < made.expires_at - utc_now() <= timedelta(hours=1)
        opened.execute(update(PasswordResetToken).values(expires_at=utc_now()))
    change = {"token": get_recovery_token(app, "dana@example.com"), "new_password": "a-linen-dress"}
    assert_unauthorized(anonymous("POST", "/reset-password/", change))


def test_s16_a_mail_from_before_the_lock_opens_no_account(
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


def test_recovery_tokens_that_are_too_old_go_with_the_next_recovery_of_anybody(
    anonymous: Client, user: User, database: Database
) -> None:
    anonymous("POST", "/password-recovery/dana@example.com")
    with database.transaction(write=True) as opened:
        opened.execute(update(PasswordResetToken).values(expires_at=utc_now()))
    anonymous("POST", "/password-recovery/nobody@example.com")
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(PasswordResetToken)).all() == []


def test_a_locked_account_gets_no_recovery_mail(app: Application, anonymous: Client) -> None:
    factories.make_user(email="locked@example.com", is_active=False)
    assert anonymous("POST", "/password-recovery/locked@example.com").status == 200
    assert not list_emails(app, "locked@example.com")
