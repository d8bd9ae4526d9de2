"""Ended sessions are rejected immediately; refresh tokens work once (RFC 9700, section 4.14.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import pytest
import time_machine
from sqlalchemy import select

from db.base import utc_now
from db.models import RefreshToken, TokenFamily, User
from db.session import Database
from handlers.app import Application
from studio.accounts.identity.passwords import hash_password
from studio.rate_limits.memory_store import MemoryStore
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.auth import assert_unauthorized, get_token_owner, refresh, revoke, sign_in
from tests.support.client import ClientResponse
from tests.support.concurrency import run_concurrently
from tests.support.mailbox import get_mailed_token
from tests.support.passwords import ADDRESS, PASSWORD

NEW_PASSWORD = "a-woollen-coat-in-march"


class TokenPair(NamedTuple):
    """The tokens of a session."""

    access: str
    refresh: str

    @property
    def headers(self) -> dict[str, str]:
        """Return the Authorization header of the access token."""
        return {"authorization": f"Bearer {self.access}"}


def parse_token_pair(response: ClientResponse) -> TokenPair:
    assert (response.status, response.headers["cache-control"]) == (200, "no-store"), response.body
    return TokenPair(response.json()["access_token"], response.json()["refresh_token"])


@pytest.fixture
def anonymous(client_for: Callable[..., Client], user: User) -> Client:
    return client_for(None)


@pytest.fixture
def new_session(anonymous: Client) -> Callable[[], TokenPair]:
    return lambda: parse_token_pair(sign_in(anonymous, ADDRESS, PASSWORD))


@pytest.fixture
def clock(app: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[time_machine.Coordinates]:
    # A fresh store: counts from the future would rate-limit later tests.
    monkeypatch.setattr(app.services.rate_limiter, "store", MemoryStore())
    with time_machine.travel(utc_now(), tick=False) as coordinates:
        yield coordinates


def assert_session_ended(anonymous: Client, tokens: TokenPair) -> None:
    """Assert that the tokens of a session are rejected."""
    for method, path in (("GET", "/users/me"), ("GET", "/brands/"), ("POST", "/logout")):
        assert_unauthorized(anonymous(method, path, headers=tokens.headers))
    assert_unauthorized(anonymous("POST", "/brands/", {"name": "Atelier Sud"}, headers=tokens.headers))
    assert_unauthorized(refresh(anonymous, tokens.refresh))


def assert_session_open(anonymous: Client, tokens: TokenPair) -> None:
    assert get_token_owner(anonymous, tokens.access).status == 200


class SessionEnders:
    """The ways to end a session of an account."""

    def __init__(self, app: Application, client_for: Callable[..., Client], user: User) -> None:
        self.app, self.user, self.anonymous = app, user, client_for(None)
        self.superuser = client_for(factories.make_user(is_superuser=True))

    def by_logout(self, tokens: TokenPair) -> int:
        return self.anonymous("POST", "/logout", headers=tokens.headers).status

    def by_revoking_the_access_token(self, tokens: TokenPair) -> int:
        return revoke(self.anonymous, tokens.access).status

    def by_revoking_the_refresh_token(self, tokens: TokenPair) -> int:
        return revoke(self.anonymous, tokens.refresh).status

    def by_deleting_it_from_another_session(self, tokens: TokenPair) -> int:
        mine = parse_token_pair(sign_in(self.anonymous, ADDRESS, PASSWORD))
        found = self.anonymous("GET", "/users/me/sessions", headers=tokens.headers).json()["data"]
        (session_id,) = [row["id"] for row in found if row["is_current"]]
        return self.anonymous("DELETE", f"/users/me/sessions/{session_id}", headers=mine.headers).status

    def by_changing_the_password_in_another_session(self, tokens: TokenPair) -> int:
        mine = parse_token_pair(sign_in(self.anonymous, ADDRESS, PASSWORD))
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        return self.anonymous("PATCH", "/users/me/password", body, headers=mine.headers).status

    def by_recovering_the_password(self, tokens: TokenPair) -> int:
        assert self.anonymous("POST", f"/password-recovery/{ADDRESS}").status == 200
        body = {"token": get_mailed_token(self.app, ADDRESS, "pr"), "new_password": NEW_PASSWORD}
        return self.anonymous("POST", "/reset-password/", body).status

    def by_a_password_change_of_a_superuser(self, tokens: TokenPair) -> int:
        return self.superuser("PATCH", f"/users/{self.user.id}", {"password": NEW_PASSWORD}).status

    def by_deactivating_the_account(self, tokens: TokenPair) -> int:
        return self.superuser("PATCH", f"/users/{self.user.id}", {"is_active": False}).status

    def by_deleting_the_account(self, tokens: TokenPair) -> int:
        return self.superuser("DELETE", f"/users/{self.user.id}").status

    def by_reusing_a_refresh_token(self, tokens: TokenPair) -> int:
        for _ in range(2):
            assert refresh(self.anonymous, tokens.refresh).status == 200
        return refresh(self.anonymous, tokens.refresh).status


SESSION_ENDERS = {
    name: name.removeprefix("by_").replace("_", " ") for name in vars(SessionEnders) if name.startswith("by_")
}
ENDS_ALL_SESSIONS = {
    "by_changing_the_password_in_another_session",
    "by_recovering_the_password",
    "by_a_password_change_of_a_superuser",
    "by_deactivating_the_account",
    "by_deleting_the_account",
}


@pytest.mark.parametrize("end", SESSION_ENDERS, ids=SESSION_ENDERS.values())
def test_s16_an_ended_session_is_rejected_at_the_next_request(
    app: Application,
    client_for: Callable[..., Client],
    user: User,
    new_session: Callable[[], TokenPair],
    end: str,
) -> None:
    anonymous, other_client = client_for(None), client_for(factories.make_user())
    mine, other = new_session(), new_session()
    assert_session_open(anonymous, mine)
    assert getattr(SessionEnders(app, client_for, user), end)(mine) in (200, 204, 401)
    assert_session_ended(anonymous, mine)
    if end in ENDS_ALL_SESSIONS:
        assert_session_ended(anonymous, other)
    else:
        assert_session_open(anonymous, other)
        assert refresh(anonymous, other.refresh).status == 200
    assert other_client("GET", "/users/me").status == 200


def test_s16_the_session_that_changes_the_password_stays_active(
    anonymous: Client, new_session: Callable[[], TokenPair]
) -> None:
    mine, body = new_session(), {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert anonymous("PATCH", "/users/me/password", body, headers=mine.headers).status == 200
    assert_session_open(anonymous, mine)
    assert refresh(anonymous, mine.refresh).status == 200


def test_s16_a_reactivated_account_has_none_of_its_old_sessions(
    anonymous: Client, client_for: Callable[..., Client], user: User, new_session: Callable[[], TokenPair]
) -> None:
    mine, superuser = new_session(), client_for(factories.make_user(is_superuser=True))
    for is_active in (False, True):
        assert superuser("PATCH", f"/users/{user.id}", {"is_active": is_active}).status == 200
        assert_session_ended(anonymous, mine)
    assert_session_open(anonymous, new_session())


def test_s16_revoking_any_token_of_a_session_revokes_all_of_them(
    anonymous: Client, new_session: Callable[[], TokenPair]
) -> None:
    for index in range(4):
        first = new_session()
        second = parse_token_pair(refresh(anonymous, first.refresh))
        assert_session_open(anonymous, first)
        assert revoke(anonymous, (*first, *second)[index]).status == 200
        for tokens in (first, second):
            assert_session_ended(anonymous, tokens)


def test_s16_revocation_reveals_nothing_and_ends_only_its_own_session(
    anonymous: Client, new_session: Callable[[], TokenPair], clock: time_machine.Coordinates
) -> None:
    mine, ended = new_session(), new_session()
    first = revoke(anonymous, ended.refresh, token_type_hint="access_token")
    assert (first.json(), first.headers["cache-control"]) == (
        {"message": "No session takes the token any more"},
        "no-store",
    )
    for token in (*ended, "rt_0Zl1n2c3", "x", f"{mine.access}A", f"{mine.refresh}A", mine.refresh.upper()):
        for hint in ({}, {"token_type_hint": "refresh_token"}, {"token_type_hint": "unknown"}):
            response = revoke(anonymous, token, **hint)
            assert (response.status, response.body) == (200, first.body)
    assert_session_open(anonymous, mine)
    clock.shift(timedelta(hours=1, seconds=1))
    # Revoking an expired access token does nothing: the session stays open.
    assert revoke(anonymous, mine.access).status == 200
    assert refresh(anonymous, mine.refresh).status == 200


def test_s16_sessions_of_others_cannot_be_seen_or_ended(
    anonymous: Client, client_for: Callable[..., Client], new_session: Callable[[], TokenPair]
) -> None:
    mine, other = new_session(), new_session()
    rows = anonymous("GET", "/users/me/sessions", headers=mine.headers).json()["data"]
    for other_client in (
        client_for(factories.make_user()),
        client_for(factories.make_user(is_superuser=True)),
    ):
        assert len(other_client("GET", "/users/me/sessions").json()["data"]) == 1
        for row in rows:
            assert other_client("DELETE", f"/users/me/sessions/{row['id']}").status == 404
    for tokens in (mine, other):
        assert_session_open(anonymous, tokens)


def test_s17_reuse_of_a_refresh_token_after_its_successor_was_used_ends_the_session(
    anonymous: Client, new_session: Callable[[], TokenPair]
) -> None:
    first, other = new_session(), new_session()
    second = parse_token_pair(refresh(anonymous, first.refresh))
    third = parse_token_pair(refresh(anonymous, second.refresh))
    assert_unauthorized(refresh(anonymous, first.refresh))
    for tokens in (first, second, third):
        assert_session_ended(anonymous, tokens)
    assert_session_open(anonymous, other)


@pytest.mark.parametrize(("seconds", "is_tolerated"), [(0, True), (9.9, True), (10.1, False), (3600, False)])
def test_s17_a_refresh_whose_response_was_lost_can_be_retried_for_ten_seconds(
    anonymous: Client,
    new_session: Callable[[], TokenPair],
    clock: time_machine.Coordinates,
    seconds: float,
    is_tolerated: bool,
) -> None:
    first = new_session()
    lost = parse_token_pair(refresh(anonymous, first.refresh))
    clock.shift(timedelta(seconds=seconds))
    again = refresh(anonymous, first.refresh)
    if not is_tolerated:
        assert_unauthorized(again)
        assert_session_ended(anonymous, lost)
        return
    retried = parse_token_pair(again)
    assert len({first.refresh, lost.refresh, retried.refresh}) == 3
    assert_session_open(anonymous, retried)
    assert refresh(anonymous, retried.refresh).status == 200


def test_s17_reuse_of_an_abandoned_refresh_token_revokes_the_token_family(
    anonymous: Client, new_session: Callable[[], TokenPair]
) -> None:
    first = new_session()
    lost = parse_token_pair(refresh(anonymous, first.refresh))
    retried = parse_token_pair(refresh(anonymous, first.refresh))
    assert_unauthorized(refresh(anonymous, lost.refresh))
    for tokens in (first, lost, retried):
        assert_session_ended(anonymous, tokens)


def test_s17_a_refresh_can_be_retried_once_only(
    anonymous: Client, new_session: Callable[[], TokenPair]
) -> None:
    first = new_session()
    refreshed = [parse_token_pair(refresh(anonymous, first.refresh)) for _ in range(2)]
    assert_unauthorized(refresh(anonymous, first.refresh))
    for tokens in (first, *refreshed):
        assert_session_ended(anonymous, tokens)


def test_s17_every_refresh_can_be_retried_once(
    anonymous: Client, new_session: Callable[[], TokenPair], clock: time_machine.Coordinates
) -> None:
    tokens = new_session()
    for _ in range(5):
        assert refresh(anonymous, tokens.refresh).status == 200
        clock.shift(timedelta(seconds=5))
        tokens = parse_token_pair(refresh(anonymous, tokens.refresh))
    assert_session_open(anonymous, tokens)


def test_s17_refreshing_does_not_extend_the_end_of_a_session(
    anonymous: Client,
    new_session: Callable[[], TokenPair],
    clock: time_machine.Coordinates,
    database: Database,
) -> None:
    tokens = new_session()

    def expiry_times() -> Any:
        with database.transaction(write=False) as reading:
            family = reading.scalars(select(TokenFamily)).one()
            times = {family.expires_at, *reading.scalars(select(RefreshToken.expires_at))}
        return times

    (expires_at,) = expiry_times()
    assert expires_at - utc_now() == timedelta(days=30)
    for _ in range(29):
        clock.shift(timedelta(days=1))
        lost = parse_token_pair(refresh(anonymous, tokens.refresh))
        tokens = parse_token_pair(refresh(anonymous, tokens.refresh))
        assert lost != tokens
    assert expiry_times() == {expires_at}
    clock.shift(timedelta(hours=23, minutes=59))
    last = refresh(anonymous, tokens.refresh)
    assert last.json()["expires_in"] == 60
    clock.shift(timedelta(seconds=60))
    # Neither the newest token nor a retry of the last refresh reopens the session.
    assert_session_ended(anonymous, parse_token_pair(last))
    assert_unauthorized(refresh(anonymous, tokens.refresh))


def sign_in_committing(committing_server: CommittingServer) -> tuple[Client, TokenPair]:
    """Return an anonymous client of a committing server, and the tokens of a session on that server."""
    client, database, production = committing_server
    with database.transaction(write=True) as writing:
        owner = writing.get_one(User, production.owner.id)
        owner.hashed_password = hash_password(PASSWORD)
        address = owner.email
    anonymous = Client(client.app)
    return anonymous, parse_token_pair(sign_in(anonymous, address, PASSWORD))


def refresh_concurrently(client: Client, tokens: list[str]) -> list[ClientResponse]:
    """Return the responses to refreshes that are sent at the same time."""
    return run_concurrently(*[partial(refresh, client, token) for token in tokens])


def test_s17_of_eight_concurrent_refreshes_two_succeed_and_the_session_ends(
    committing_server: CommittingServer,
) -> None:
    anonymous, tokens = sign_in_committing(committing_server)
    responses = refresh_concurrently(anonymous, [tokens.refresh] * 8)
    assert sorted(response.status for response in responses) == [200, 200, *[401] * 6]
    for response in responses:
        if response.status == 200:
            assert_session_ended(anonymous, parse_token_pair(response))


def test_s17_of_two_concurrent_refreshes_only_one_token_stays_unused(
    committing_server: CommittingServer, long_form: bool
) -> None:
    for _ in range(20 if long_form else 2):
        anonymous, tokens = sign_in_committing(committing_server)
        refreshed = [
            parse_token_pair(response) for response in refresh_concurrently(anonymous, [tokens.refresh] * 2)
        ]
        with committing_server.database.transaction(write=False) as reading:
            family = reading.scalars(select(TokenFamily).order_by(TokenFamily.created_at.desc())).first()
            assert family is not None
            unused = RefreshToken.used_at.is_(None) & (RefreshToken.family_id == family.id)
            assert len(reading.scalars(select(RefreshToken).where(unused)).all()) == 1
        # The server cannot tell the thief from the owner of the session, so both are rejected.
        statuses = [refresh(anonymous, tokens.refresh).status for tokens in refreshed]
        assert sorted(statuses) in ([200, 401], [401, 401])
        assert_session_ended(anonymous, refreshed[0])
        assert_session_ended(anonymous, refreshed[1])


def test_s17_a_retry_and_a_concurrent_use_of_the_lost_token_end_the_session(
    committing_server: CommittingServer, long_form: bool
) -> None:
    for _ in range(20 if long_form else 2):
        anonymous, tokens = sign_in_committing(committing_server)
        lost = parse_token_pair(refresh(anonymous, tokens.refresh))
        responses = refresh_concurrently(anonymous, [tokens.refresh, lost.refresh])
        assert sorted(response.status for response in responses) == [200, 401]
        (accepted,) = (parse_token_pair(response) for response in responses if response.status == 200)
        for pair in (tokens, lost, accepted):
            assert_session_ended(anonymous, pair)
