"""The sessions of the caller's account: list and revoke them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from db.base import utc_now
from db.models import TokenFamily, User
from db.session import Database
from handlers.app import Application
from tests.api.conftest import Client
from tests.security.rate_limits import AppFromAddress
from tests.support import factories
from tests.support.auth import refresh, sign_in
from tests.support.mailbox import list_emails_to
from tests.support.passwords import PASSWORD


@pytest.fixture
def client(client_for: Callable[..., Client], user: User) -> Client:
    """Return a signed-in client that sends a User-Agent."""
    client = client_for(None)
    client.headers["user-agent"] = "Atelier/1.0"
    token = sign_in(client, user.email, PASSWORD).json()["access_token"]
    client.headers["authorization"] = f"Bearer {token}"
    return client


def test_a_session_is_returned_without_its_tokens(client: Client) -> None:
    response = client("GET", "/users/me/sessions")
    (shown,) = response.json()["data"]
    assert response.status == 200
    assert response.json() == {"data": [shown], "count": 1, "count_exact": True, "next_cursor": None}
    assert shown == {
        "id": shown["id"],
        "created_at": shown["created_at"],
        "updated_at": shown["updated_at"],
        "user_agent": "Atelier/1.0",
        "address": shown["address"],
        "last_used_at": shown["last_used_at"],
        "expires_at": shown["expires_at"],
        "is_current": True,
    }
    assert shown["address"]
    ends_at = datetime.fromisoformat(shown["expires_at"])
    assert timedelta(days=29, hours=23) < ends_at - utc_now() <= timedelta(days=30)


def test_s58_a_sign_in_from_a_new_device_sends_an_email(app: Application, user: User) -> None:
    def sign_in_from(address: str, program: str) -> list[str]:
        client = Client(AppFromAddress(app, address), {"user-agent": program})
        assert sign_in(client, user.email, PASSWORD).status == 200
        return list_emails_to(app, user.email)[sent_before:]

    # Other tests sent e-mails to this address, too.
    sent_before = len(list_emails_to(app, user.email))
    # Nothing to compare with.
    assert sign_in_from("192.0.2.7", "Firefox/140.0 (https://evil.example)") == []
    assert sign_in_from("192.0.2.7", "Firefox/141.0.1 (https://evil.example)") == []
    (text,) = sign_in_from("192.0.2.8", "Firefox/141.0.1 (https://evil.example)")
    assert "at the IP address 192.0.2.8" in text
    assert "https://evil.example" not in text
    assert len(sign_in_from("192.0.2.7", "curl/8.5.0")) == 2
    assert len(sign_in_from("192.0.2.8", "Firefox/142.0 (https://evil.example)")) == 2


def test_only_the_session_of_the_request_is_the_current_one(
    client: Client, client_for: Callable[..., Client], user: User
) -> None:
    other = client_for(user)
    shown = {row["user_agent"]: row for row in client("GET", "/users/me/sessions").json()["data"]}
    assert {name: row["is_current"] for name, row in shown.items()} == {"Atelier/1.0": True, None: False}
    others = {row["id"]: row["is_current"] for row in other("GET", "/users/me/sessions").json()["data"]}
    assert others == {shown["Atelier/1.0"]["id"]: False, shown[None]["id"]: True}


def test_refreshing_a_token_updates_last_used_at(
    client: Client, client_for: Callable[..., Client], user: User
) -> None:
    tokens = sign_in(client_for(None), user.email, PASSWORD).json()

    def last_uses() -> dict[str, str]:
        rows = client("GET", "/users/me/sessions?sort=created_at").json()["data"]
        return {row["id"]: row["last_used_at"] for row in rows}

    before = last_uses()
    earliest = utc_now()
    assert refresh(client, tokens["refresh_token"]).status == 200
    (own, refreshed), (own_before, refreshed_before) = last_uses().values(), before.values()
    assert own == own_before
    assert datetime.fromisoformat(refreshed_before) < earliest <= datetime.fromisoformat(refreshed)


def test_expired_and_revoked_sessions_are_not_listed(client: Client, user: User, database: Database) -> None:
    past, future = utc_now() - timedelta(seconds=1), utc_now() + timedelta(days=1)
    ended = [
        factories.make(TokenFamily(user_id=user.id, expires_at=past)),
        factories.make(TokenFamily(user_id=user.id, expires_at=future, revoked_at=past)),
    ]
    (current,) = client("GET", "/users/me/sessions").json()["data"]
    for family in ended:
        assert client("DELETE", f"/users/me/sessions/{family.id}").status == 404
    with database.transaction(write=True) as writing:
        writing.execute(update(TokenFamily).values(expires_at=future))
    assert [row["id"] for row in client("GET", "/users/me/sessions").json()["data"]] == [
        str(ended[0].id),
        current["id"],
    ]


def test_any_session_can_be_revoked_once_including_the_current_one(
    client: Client, client_for: Callable[..., Client], user: User
) -> None:
    other = client_for(user)
    sessions = {row["is_current"]: row["id"] for row in client("GET", "/users/me/sessions").json()["data"]}
    path = f"/users/me/sessions/{sessions[False]}"
    ended = client("DELETE", path)
    assert (ended.status, ended.body) == (204, b"")
    assert client("DELETE", path).status == 404
    assert other("GET", "/users/me").status == 401
    assert client("DELETE", f"/users/me/sessions/{sessions[True]}").status == 204
    assert client("GET", "/users/me").status == 401
