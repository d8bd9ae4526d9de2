"""Changes of an account's e-mail address: password, confirmation by e-mail, notice to the old address."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from db.base import utc_now
from db.models import EmailChange, User
from db.session import Database
from handlers.app import Application
from studio.accounts.identity.passwords import hash_password
from tests.api.conftest import Client
from tests.support import factories
from tests.support.auth import assert_invalid_token
from tests.support.client import ClientResponse, assert_conflict
from tests.support.mailbox import get_mailed_token, list_emails_to

PASSWORD = "sartiq-demo"
HASHED = hash_password(PASSWORD)
OLD, NEW = "dana@example.com", "dana.demo@example.com"


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email=OLD, full_name="Dana Demo", hashed_password=HASHED)


@pytest.fixture(autouse=True)
def _empty_outbox(app: Application) -> None:
    for path in app.settings.outbox_dir.glob("*.eml"):
        path.unlink()


def request_change(client: Client, email: str = NEW, **fields: Any) -> ClientResponse:
    return client("PATCH", "/users/me", {"email": email, "current_password": PASSWORD, **fields})


def confirm_change(anonymous: Client, token: str) -> ClientResponse:
    return anonymous("POST", "/email-change/confirm", {"token": token})


def get_mailed_email_token(app: Application, address: str = NEW) -> str:
    return get_mailed_token(app, address, "ec")


def get_email(client: Client) -> str:
    return str(client("GET", "/users/me").json()["email"])


def test_nothing_changes_until_the_mailed_token_is_used(
    app: Application, client: Client, anonymous: Client, database: Database
) -> None:
    before = client("GET", "/users/me")
    response = request_change(client, "Dana.Demo@Example.com")
    assert (response.status, response.json()) == (200, before.json())
    assert response.headers["etag"] == before.headers["etag"]
    assert NEW in list_emails_to(app, OLD)[0]
    token = get_mailed_email_token(app)
    with database.transaction(write=False) as reading:
        stored = reading.connection().exec_driver_sql("SELECT * FROM email_changes").one()
        change = reading.scalars(select(EmailChange)).one()
    assert token not in str(stored)
    assert timedelta(hours=23) < change.expires_at - utc_now() <= timedelta(hours=24)
    response = confirm_change(anonymous, token)
    assert (response.status, response.json()) == (200, {"message": "Address changed"})
    assert client("GET", "/users/me").json() == {
        **before.json(),
        "email": NEW,
        "updated_at": client("GET", "/users/me").json()["updated_at"],
    }
    assert f"uses the address {NEW} from now on" in list_emails_to(app, OLD)[1]
    assert_invalid_token(confirm_change(anonymous, token))


def test_only_a_new_address_requires_the_password(app: Application, client: Client) -> None:
    assert_conflict(client("PATCH", "/users/me", {"email": NEW}), "password_required")
    assert_conflict(request_change(client, current_password="not the password"), "incorrect_password")
    same_address = {"email": OLD.upper(), "full_name": "Dana"}
    assert client("PATCH", "/users/me", same_address).json()["full_name"] == "Dana"
    assert client("PATCH", "/users/me", {"current_password": "whatever"}).status == 200
    assert list_emails_to(app, NEW) + list_emails_to(app, OLD) == []


def test_a_rejected_change_leaves_the_other_fields_unchanged(client: Client) -> None:
    assert_conflict(client("PATCH", "/users/me", {"email": NEW, "full_name": "A"}), "password_required")
    assert client("GET", "/users/me").json()["full_name"] == "Dana Demo"


def test_name_and_address_can_change_in_one_request(
    app: Application, client: Client, anonymous: Client
) -> None:
    assert request_change(client, full_name="Dana").json()["full_name"] == "Dana"
    assert confirm_change(anonymous, get_mailed_email_token(app)).status == 200
    shown = client("GET", "/users/me").json()
    assert (shown["email"], shown["full_name"]) == (NEW, "Dana")


def test_a_later_change_replaces_the_first(app: Application, client: Client, anonymous: Client) -> None:
    request_change(client)
    first = get_mailed_email_token(app)
    request_change(client, "other@example.com")
    assert_invalid_token(confirm_change(anonymous, first))
    assert confirm_change(anonymous, get_mailed_email_token(app, "other@example.com")).status == 200
    assert get_email(client) == "other@example.com"


def test_an_expired_change_cannot_be_confirmed(
    app: Application, client: Client, anonymous: Client, database: Database
) -> None:
    request_change(client)
    with database.transaction(write=True) as writing:
        writing.execute(update(EmailChange).values(expires_at=utc_now()))
    assert_invalid_token(confirm_change(anonymous, get_mailed_email_token(app)))
    assert get_email(client) == OLD


def test_a_change_to_the_address_of_another_account_is_reported_only_by_email(
    app: Application, client: Client, anonymous: Client, database: Database
) -> None:
    factories.make_user(email=NEW)
    assert request_change(client).json()["email"] == OLD
    (message,) = list_emails_to(app, NEW)
    assert "It belongs to your account, so nothing changes." in message
    assert "ec_" not in message
    assert len(list_emails_to(app, OLD)) == 1


def test_an_address_that_another_account_got_before_the_confirmation_is_taken(
    app: Application, client: Client, anonymous: Client, superuser: Client
) -> None:
    request_change(client)
    account = {"email": NEW.upper(), "password": "a-linen-dress"}
    assert superuser("POST", "/users/", account).status == 201
    assert_conflict(confirm_change(anonymous, get_mailed_email_token(app)), "email_taken")
    assert get_email(client) == OLD


def recover_password(app: Application, anonymous: Client) -> None:
    """Set a new password with a mailed token."""
    anonymous("POST", f"/password-recovery/{OLD}")
    body = {"token": get_mailed_token(app, OLD, "pr"), "new_password": "a-linen-dress"}
    assert anonymous("POST", "/reset-password/", body).status == 200


@pytest.mark.parametrize("reaction", ["password changed", "password recovered", "account locked"])
def test_s16_a_new_password_or_a_lock_cancels_the_change(
    app: Application, client: Client, anonymous: Client, superuser: Client, user: User, reaction: str
) -> None:
    request_change(client)
    token = get_mailed_email_token(app)
    change = {"current_password": PASSWORD, "new_password": "a-linen-dress"}
    {
        "password changed": lambda: client("PATCH", "/users/me/password", change),
        "password recovered": lambda: recover_password(app, anonymous),
        "account locked": lambda: superuser("PATCH", f"/users/{user.id}", {"is_active": False}),
    }[reaction]()
    assert_invalid_token(confirm_change(anonymous, token))
    assert superuser("GET", f"/users/{user.id}").json()["email"] == OLD


def test_s16_recovery_tokens_mailed_to_the_old_address_become_invalid(
    app: Application, client: Client, anonymous: Client
) -> None:
    anonymous("POST", f"/password-recovery/{OLD}")
    recovery = get_mailed_token(app, OLD, "pr")
    request_change(client)
    assert confirm_change(anonymous, get_mailed_email_token(app)).status == 200
    assert_invalid_token(
        anonymous("POST", "/reset-password/", {"token": recovery, "new_password": "a-linen-dress"})
    )


def test_a_change_by_a_superuser_replaces_a_pending_change(
    app: Application, client: Client, anonymous: Client, superuser: Client, user: User
) -> None:
    request_change(client)
    assert superuser("PATCH", f"/users/{user.id}", {"email": "third@example.com"}).status == 200
    assert_invalid_token(confirm_change(anonymous, get_mailed_email_token(app)))
    assert get_email(client) == "third@example.com"
