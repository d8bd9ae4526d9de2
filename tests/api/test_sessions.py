"""The sessions of one's own account: seen, and ended one by one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from db.base import utc_now
from db.models import TokenFamily, User
from db.session import Database
from studio.accounts.identity.passwords import hash_password
from tests.api.conftest import Client
from tests.support import factories
from tests.support.auth import refresh, sign_in

PASSWORD = "a-linen-dress-in-may"


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email="dana@example.com", hashed_password=hash_password(PASSWORD))


@pytest.fixture
def client(client_for: Callable[..., Client], user: User) -> Client:
    """Somebody who signed in, with a program that has a name."""
    named = client_for(None)
    named.headers["user-agent"] = "Atelier/1.0"
    token = sign_in(named, user.email, PASSWORD).json()["access_token"]
    named.headers["authorization"] = f"Bearer {token}"
    return named


def test_a_session_is_shown_whole_and_without_its_tokens(client: Client) -> None:
    reply = client("GET", "/users/me/sessions")
    (shown,) = reply.json()["data"]
    assert reply.status == 200
    assert reply.json() == {"data": [shown], "count": 1, "count_exact": True, "next_cursor": None}
    assert shown == {
        "id": shown["id"],
        "created_at": shown["created_at"],
        "updated_at": shown["updated_at"],
        "user_agent": "Atelier/1.0",
        "last_used_at": shown["last_used_at"],
        "expires_at": shown["expires_at"],
        "is_current": True,
    }
    ends_at = datetime.fromisoformat(shown["expires_at"])
    assert timedelta(days=29, hours=23) < ends_at - utc_now() <= timedelta(days=30)


def test_one_of_many_sessions_is_the_current_one(
    client: Client, client_for: Callable[..., Client], user: User
) -> None:
    other = client_for(user)
    shown = {row["user_agent"]: row for row in client("GET", "/users/me/sessions").json()["data"]}
    assert {name: row["is_current"] for name, row in shown.items()} == {"Atelier/1.0": True, None: False}
    theirs = {row["id"]: row["is_current"] for row in other("GET", "/users/me/sessions").json()["data"]}
    assert theirs == {shown["Atelier/1.0"]["id"]: False, shown[None]["id"]: True}


def test_a_renewal_is_a_use(client: Client, client_for: Callable[..., Client], user: User) -> None:
    tokens = sign_in(client_for(None), user.email, PASSWORD).json()

    def used() -> dict[str, str]:
        rows = client("GET", "/users/me/sessions?sort=created_at").json()["data"]
        return {row["id"]: row["last_used_at"] for row in rows}

    before = used()
    earliest = utc_now()
    assert refresh(client, tokens["refresh_token"]).status == 200
    (mine, theirs), (mine_before, theirs_before) = used().values(), before.values()
    assert mine == mine_before
    assert datetime.fromisoformat(theirs_before) < earliest <= datetime.fromisoformat(theirs)


def test_what_is_over_is_not_listed(client: Client, user: User, database: Database) -> None:
    past, until = utc_now() - timedelta(seconds=1), utc_now() + timedelta(days=1)
    over = [
        factories.make(TokenFamily(user_id=user.id, expires_at=past)),
        factories.make(TokenFamily(user_id=user.id, expires_at=until, revoked_at=past)),
    ]
    (mine,) = client("GET", "/users/me/sessions").json()["data"]
    for family in over:
        assert client("DELETE", f"/users/me/sessions/{family.id}").status == 404
    with database.transaction(write=True) as writing:
        writing.execute(update(TokenFamily).values(expires_at=until))
    assert [row["id"] for row in client("GET", "/users/me/sessions").json()["data"]] == [
        str(over[0].id),
        mine["id"],
    ]


def test_a_session_is_ended_once_and_the_current_one_too(
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
