"""Changing one's address: with the password, proven by mail, told to the old address, and to nobody else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from db.base import utc_now
from db.models import EmailChange, User
from db.session import Database
from handlers.app import Application
from studio.identity.passwords import hash_password
from tests import factories
from tests.api.conftest import Client
from tests.api.mailbox import letters_to, token_mailed_to
from tests.contract.mini.asking import Reply

PASSWORD = "sartiq-demo"
HASHED = hash_password(PASSWORD)
OLD, NEW = "dana@example.com", "dana.demo@example.com"


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email=OLD, full_name="Dana Demo", hashed_password=HASHED)


@pytest.fixture
def client(client_of: Callable[..., Client], user: User) -> Client:
    return client_of(user)


@pytest.fixture
def anybody(client_of: Callable[..., Client]) -> Client:
    return client_of(None)


@pytest.fixture(autouse=True)
def _no_old_letters(app: Application) -> None:
    for path in app.settings.outbox_dir.glob("*.eml"):
        path.unlink()


def ask(client: Client, email: str = NEW, **more: Any) -> Reply:
    return client("PATCH", "/users/me", {"email": email, "current_password": PASSWORD, **more})


def confirm(anybody: Client, token: str) -> Reply:
    return anybody("POST", "/email-change/confirm", {"token": token})


def mailed(app: Application, address: str = NEW) -> str:
    return token_mailed_to(app, address, "ec")


def address_of(client: Client) -> str:
    return str(client("GET", "/users/me").json()["email"])


def assert_conflict(reply: Reply, code: str) -> None:
    assert (reply.status, reply.json()["code"]) == (409, code), reply.body


def assert_refused(reply: Reply) -> None:
    assert (reply.status, reply.json()["code"]) == (401, "invalid_token"), reply.body


def test_nothing_changes_until_the_mailed_token_is_used(
    app: Application, client: Client, anybody: Client, database: Database
) -> None:
    before = client("GET", "/users/me")
    reply = ask(client, "Dana.Demo@Example.com")
    assert (reply.status, reply.json()) == (200, before.json())
    assert reply.headers["etag"] == before.headers["etag"]
    assert NEW in letters_to(app, OLD)[0]
    token = mailed(app)
    with database.transaction(write=False) as reading:
        kept = reading.connection().exec_driver_sql("SELECT * FROM email_changes").one()
        change = reading.scalars(select(EmailChange)).one()
    assert token not in str(kept)
    assert timedelta(hours=23) < change.expires_at - utc_now() <= timedelta(hours=24)
    reply = confirm(anybody, token)
    assert (reply.status, reply.json()) == (200, {"message": "Address changed"})
    assert client("GET", "/users/me").json() == {
        **before.json(),
        "email": NEW,
        "updated_at": client("GET", "/users/me").json()["updated_at"],
    }
    assert f"uses the address {NEW} from now on" in letters_to(app, OLD)[1]
    assert_refused(confirm(anybody, token))


def test_another_address_needs_the_password_and_the_same_one_does_not(
    app: Application, client: Client
) -> None:
    assert_conflict(client("PATCH", "/users/me", {"email": NEW}), "password_required")
    assert_conflict(ask(client, current_password="not the password"), "incorrect_password")
    both = {"email": OLD.upper(), "full_name": "Dana"}
    assert client("PATCH", "/users/me", both).json()["full_name"] == "Dana"
    assert client("PATCH", "/users/me", {"current_password": "whatever"}).status == 200
    assert letters_to(app, NEW) + letters_to(app, OLD) == []


def test_a_refused_change_changes_nothing_else(client: Client) -> None:
    assert_conflict(client("PATCH", "/users/me", {"email": NEW, "full_name": "A"}), "password_required")
    assert client("GET", "/users/me").json()["full_name"] == "Dana Demo"


def test_a_name_and_an_address_change_in_one_request(
    app: Application, client: Client, anybody: Client
) -> None:
    assert ask(client, full_name="Dana").json()["full_name"] == "Dana"
    assert confirm(anybody, mailed(app)).status == 200
    shown = client("GET", "/users/me").json()
    assert (shown["email"], shown["full_name"]) == (NEW, "Dana")


def test_a_later_change_replaces_the_first(app: Application, client: Client, anybody: Client) -> None:
    ask(client)
    first = mailed(app)
    ask(client, "other@example.com")
    assert_refused(confirm(anybody, first))
    assert confirm(anybody, mailed(app, "other@example.com")).status == 200
    assert address_of(client) == "other@example.com"


def test_a_change_is_too_old_after_a_day(
    app: Application, client: Client, anybody: Client, database: Database
) -> None:
    ask(client)
    with database.transaction(write=True) as writing:
        writing.execute(update(EmailChange).values(expires_at=utc_now()))
    assert_refused(confirm(anybody, mailed(app)))
    assert address_of(client) == OLD


def test_who_has_the_address_is_told_by_mail_and_nobody_else(
    app: Application, client: Client, anybody: Client, database: Database
) -> None:
    factories.make_user(email=NEW)
    assert ask(client).json()["email"] == OLD
    (letter,) = letters_to(app, NEW)
    assert "It belongs to your account, so nothing changes." in letter
    assert "ec_" not in letter
    assert len(letters_to(app, OLD)) == 1


def test_an_address_that_got_an_account_meanwhile_is_taken(
    app: Application, client: Client, anybody: Client, superuser: Client
) -> None:
    ask(client)
    account = {"email": NEW.upper(), "password": "a-linen-dress"}
    assert superuser("POST", "/users/", account).status == 201
    assert_conflict(confirm(anybody, mailed(app)), "email_taken")
    assert address_of(client) == OLD


def recover(app: Application, anybody: Client) -> None:
    """Set a new password with a mailed token."""
    anybody("POST", f"/password-recovery/{OLD}")
    body = {"token": token_mailed_to(app, OLD, "pr"), "new_password": "a-linen-dress"}
    assert anybody("POST", "/reset-password/", body).status == 200


@pytest.mark.parametrize("reaction", ["password changed", "password recovered", "account locked"])
def test_s16_whoever_reacts_to_the_notice_cancels_the_change(
    app: Application, client: Client, anybody: Client, superuser: Client, user: User, reaction: str
) -> None:
    ask(client)
    token = mailed(app)
    change = {"current_password": PASSWORD, "new_password": "a-linen-dress"}
    {
        "password changed": lambda: client("PATCH", "/users/me/password", change),
        "password recovered": lambda: recover(app, anybody),
        "account locked": lambda: superuser("PATCH", f"/users/{user.id}", {"is_active": False}),
    }[reaction]()
    assert_refused(confirm(anybody, token))
    assert superuser("GET", f"/users/{user.id}").json()["email"] == OLD


def test_s16_mails_to_the_old_address_reset_no_password_any_more(
    app: Application, client: Client, anybody: Client
) -> None:
    anybody("POST", f"/password-recovery/{OLD}")
    recovery = token_mailed_to(app, OLD, "pr")
    ask(client)
    assert confirm(anybody, mailed(app)).status == 200
    assert_refused(anybody("POST", "/reset-password/", {"token": recovery, "new_password": "a-linen-dress"}))


def test_an_administrators_change_takes_the_place_of_ones_own(
    app: Application, client: Client, anybody: Client, superuser: Client, user: User
) -> None:
    ask(client)
    assert superuser("PATCH", f"/users/{user.id}", {"email": "third@example.com"}).status == 200
    assert_refused(confirm(anybody, mailed(app)))
    assert address_of(client) == "third@example.com"
