"""Signing in and out, rotating refresh tokens, and recovering a password, through the API."""

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
from db.session import session as running
from handlers.app import Application
from handlers.auth import AUDIENCE
from studio.identity import sessions
from studio.identity.passwords import hash_password, verify_password
from studio.identity.recovery import LEAST_SECONDS
from tests import factories, signing_in
from tests.api.conftest import Client, Committed
from tests.contract.mini.asking import Reply
from tests.racing import at_once
from tests.signing_in import assert_refused, refresh, who

PASSWORD = "päss wörd 🔑 & % =+"


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email="dana@example.com", hashed_password=hash_password(PASSWORD))


@pytest.fixture
def anybody(client_of: Callable[..., Client]) -> Client:
    return client_of(None)


def sign_in(
    client: Client, username: str = "dana@example.com", password: str = PASSWORD, **more: str
) -> Reply:
    return signing_in.sign_in(client, username, password, **more)


def mails(app: Application, to: str) -> list[str]:
    found = []
    for path in sorted(app.settings.outbox_dir.glob("*.eml")):
        letter = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if letter["To"] == to:
            found.append(letter.get_content())
    return found


def mailed_token(app: Application, to: str) -> str:
    found = re.search(r"^(pr_\S+)\s*$", mails(app, to)[-1], re.MULTILINE)
    assert found
    return found[1]


def test_signing_in_gives_a_token_pair_that_nobody_may_store(anybody: Client, user: User) -> None:
    reply = sign_in(anybody, grant_type="password", scope="", client_id="web", client_secret="none")
    tokens = reply.json()
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    assert tokens == {
        "access_token": tokens["access_token"],
        "token_type": "bearer",
        "expires_in": 3600,
        "refresh_token": tokens["refresh_token"],
    }
    assert who(anybody, tokens["access_token"]).json()["email"] == "dana@example.com"


def test_the_access_token_is_a_jwt_with_our_claims(app: Application, anybody: Client, user: User) -> None:
    tokens = [sign_in(anybody).json()["access_token"] for _ in range(2)]
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


def test_the_address_is_found_in_any_letter_case(anybody: Client, user: User) -> None:
    assert sign_in(anybody, "DANA@Example.COM").status == 200


@pytest.mark.parametrize(
    ("username", "password"),
    [("dana@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("' OR 1=1 --", "x")],
)
def test_wrong_passwords_and_unknown_addresses_are_answered_alike(
    anybody: Client, user: User, username: str, password: str
) -> None:
    assert_refused(sign_in(anybody, username, password), "Incorrect email or password")


def test_a_locked_account_is_answered_like_a_wrong_password(anybody: Client, user: User) -> None:
    user.is_active = False
    factories.make(user)
    assert_refused(sign_in(anybody), "Incorrect email or password")


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
    anybody: Client, user: User, database: Database, monkeypatch: pytest.MonkeyPatch, change: Executable
) -> None:
    def verify(hashed: str | None, password: str) -> bool:
        is_right = verify_password(hashed, password)
        running().connection().execute(change)
        return is_right

    monkeypatch.setattr(sessions, "verify_password", verify)
    assert_refused(sign_in(anybody), "Incorrect email or password")
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(TokenFamily)).all() == []


def test_an_old_hash_is_renewed_with_the_parameters_of_today(anybody: Client, user: User) -> None:
    user.hashed_password = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash(PASSWORD)
    factories.make(user)
    assert sign_in(anybody).status == 200
    factories.make(user)
    assert user.hashed_password.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_refresh_token_is_spent_for_a_new_pair(anybody: Client, user: User) -> None:
    first = sign_in(anybody).json()
    reply = refresh(anybody, first["refresh_token"])
    second = reply.json()
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    assert second["refresh_token"] != first["refresh_token"]
    assert who(anybody, second["access_token"]).status == 200
    assert refresh(anybody, second["refresh_token"]).status == 200


def test_an_unknown_refresh_token_is_refused(anybody: Client, user: User) -> None:
    assert_refused(refresh(anybody, "rt_0Zl1n2c3"))


def test_an_access_token_does_not_outlive_its_session(
    anybody: Client, user: User, database: Database
) -> None:
    tokens = sign_in(anybody).json()
    with database.transaction(write=True) as opened:
        opened.execute(update(TokenFamily).values(expires_at=utc_now() + timedelta(seconds=100)))
    assert 90 < refresh(anybody, tokens["refresh_token"]).json()["expires_in"] <= 100


def test_signing_out_ends_the_session_at_once_and_no_other(anybody: Client, user: User) -> None:
    mine, other = sign_in(anybody).json(), sign_in(anybody).json()
    header = {"authorization": f"Bearer {mine['access_token']}"}
    reply = anybody("POST", "/logout", headers=header)
    assert (reply.status, reply.body) == (204, b"")
    assert_refused(who(anybody, mine["access_token"]))
    assert_refused(refresh(anybody, mine["refresh_token"]))
    assert who(anybody, other["access_token"]).status == 200


def test_a_locked_account_is_out_at_once(anybody: Client, user: User) -> None:
    tokens = sign_in(anybody).json()
    user.is_active = False
    factories.make(user)
    assert_refused(who(anybody, tokens["access_token"]))
    assert_refused(refresh(anybody, tokens["refresh_token"]))


def test_sessions_that_ended_long_ago_go_with_the_next_sign_in_of_their_account(
    anybody: Client, user: User, database: Database
) -> None:
    other = factories.make(TokenFamily(user_id=factories.make_user().id, expires_at=utc_now()))
    over = factories.make(TokenFamily(user_id=user.id, expires_at=utc_now()))
    assert sign_in(anybody).status == 200
    with database.transaction(write=False) as reading:
        kept = set(reading.scalars(select(TokenFamily.id)))
    assert (len(kept), over.id in kept, other.id in kept) == (2, False, True)


def test_secrets_are_stored_as_hashes_only(anybody: Client, user: User, database: Database) -> None:
    tokens = sign_in(anybody).json()
    with database.transaction(write=False) as opened:
        rows = opened.connection().exec_driver_sql("SELECT * FROM refresh_tokens").all()
        family = opened.scalars(select(TokenFamily)).one()
    assert tokens["refresh_token"] not in str(rows)
    assert family.user_id == user.id


def test_recovery_says_the_same_for_known_and_unknown_addresses(
    app: Application, anybody: Client, user: User
) -> None:
    known = anybody("POST", "/password-recovery/DANA@example.com")
    unknown = anybody("POST", "/password-recovery/nobody@example.com")
    assert (known.status, known.json()) == (200, unknown.json())
    assert (unknown.status, set(known.json())) == (200, {"message"})
    assert mails(app, "dana@example.com")
    assert not mails(app, "nobody@example.com")


@pytest.mark.parametrize(
    "address", [".@a.b", "a..b@c.d", "a|b@-.-", "x" * 64 + "@a.b", "#!$%*+=^_`{|}~.-@a.b"]
)
def test_odd_addresses_that_the_contract_allows_do_no_harm(anybody: Client, address: str) -> None:
    reply = anybody("POST", f"/password-recovery/{quote(address, safe='@')}")
    assert reply.status in (200, 422), reply.body
    assert b"internal_error" not in reply.body


def test_recovery_takes_as_long_for_an_unknown_address(anybody: Client, user: User) -> None:
    spans = []
    for address in ("dana@example.com", "nobody@example.com"):
        start = time.perf_counter()
        anybody("POST", f"/password-recovery/{address}")
        spans.append(time.perf_counter() - start)
    assert min(spans) >= LEAST_SECONDS


def test_a_mailed_token_sets_a_password_once_and_ends_all_sessions(
    app: Application, anybody: Client, user: User
) -> None:
    tokens = sign_in(anybody).json()
    anybody("POST", "/password-recovery/dana@example.com")
    change = {"token": mailed_token(app, "dana@example.com"), "new_password": "a-linen-dress-in-may"}
    reply = anybody("POST", "/reset-password/", change)
    assert (reply.status, reply.json()) == (200, {"message": "Password changed"})
    assert_refused(who(anybody, tokens["access_token"]))
    assert_refused(sign_in(anybody), "Incorrect email or password")
    assert sign_in(anybody, password="a-linen-dress-in-may").status == 200
    assert_refused(anybody("POST", "/reset-password/", change))


def test_a_used_recovery_token_takes_the_other_ones_with_it(
    app: Application, anybody: Client, user: User
) -> None:
    tokens = []
    for _ in range(2):
        anybody("POST", "/password-recovery/dana@example.com")
        tokens.append(mailed_token(app, "dana@example.com"))
    assert tokens[0] != tokens[1]
    outcomes = [
        anybody("POST", "/reset-password/", {"token": token, "new_password": "a-linen-dress"}).status
        for token in tokens
    ]
    assert outcomes == [200, 401]


def test_s16_of_two_recovery_tokens_at_once_one_sets_the_password(
    committed: Committed, application: Application
) -> None:
    anybody, tokens = Client(application), []
    for _ in range(2):
        anybody("POST", f"/password-recovery/{committed.production.owner.email}")
        tokens.append(mailed_token(application, committed.production.owner.email))

    def spend(token: str) -> int:
        change = {"token": token, "new_password": "a-linen-dress-in-may"}
        return anybody("POST", "/reset-password/", change).status

    assert sorted(at_once(*[partial(spend, token) for token in tokens])) == [200, 401]


@pytest.mark.parametrize("reaction", ["a new password", "an address that a superuser set"])
def test_s16_whoever_reacts_to_a_mail_that_others_may_read_makes_its_token_worthless(
    app: Application, anybody: Client, user: User, client_of: Callable[..., Client], reaction: str
) -> None:
    anybody("POST", "/password-recovery/dana@example.com")
    client, root = client_of(user), client_of(factories.make_user(is_superuser=True))
    body = {"current_password": PASSWORD, "new_password": "a-woollen-coat"}
    done = {
        "a new password": lambda: client("PATCH", "/users/me/password", body),
        "an address that a superuser set": lambda: root(
            "PATCH", f"/users/{user.id}", {"email": "dana@example.org"}
        ),
    }[reaction]()
    assert done.status == 200, done.body
    change = {"token": mailed_token(app, "dana@example.com"), "new_password": "a-linen-dress-in-may"}
    assert_refused(anybody("POST", "/reset-password/", change))


def test_a_recovery_token_is_too_old_after_an_hour(
    app: Application, anybody: Client, user: User, database: Database
) -> None:
    anybody("POST", "/password-recovery/dana@example.com")
    with database.transaction(write=True) as opened:
        made = opened.scalars(select(PasswordResetToken)).one()
        assert timedelta(minutes=59) < made.expires_at - utc_now() <= timedelta(hours=1)
        opened.execute(update(PasswordResetToken).values(expires_at=utc_now()))
    change = {"token": mailed_token(app, "dana@example.com"), "new_password": "a-linen-dress"}
    assert_refused(anybody("POST", "/reset-password/", change))


def test_s16_a_mail_from_before_the_lock_opens_no_account(
    app: Application, anybody: Client, user: User
) -> None:
    anybody("POST", "/password-recovery/dana@example.com")
    user.is_active = False
    factories.make(user)
    change = {"token": mailed_token(app, "dana@example.com"), "new_password": "a-linen-dress"}
    assert_refused(anybody("POST", "/reset-password/", change))
    user.is_active = True
    factories.make(user)
    assert sign_in(anybody).status == 200


def test_recovery_tokens_that_are_too_old_go_with_the_next_recovery_of_anybody(
    anybody: Client, user: User, database: Database
) -> None:
    anybody("POST", "/password-recovery/dana@example.com")
    with database.transaction(write=True) as opened:
        opened.execute(update(PasswordResetToken).values(expires_at=utc_now()))
    anybody("POST", "/password-recovery/nobody@example.com")
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(PasswordResetToken)).all() == []


def test_a_locked_account_gets_no_recovery_mail(app: Application, anybody: Client) -> None:
    factories.make_user(email="locked@example.com", is_active=False)
    assert anybody("POST", "/password-recovery/locked@example.com").status == 200
    assert not mails(app, "locked@example.com")
