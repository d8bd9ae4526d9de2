"""What ended a session counts with the next request, and a refresh token works once (RFC 9700, 4.14.2)."""

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
from studio.identity.passwords import hash_password
from studio.limits.counters import MemoryCounters
from tests import factories
from tests.api.conftest import Client, Committed
from tests.api.mailbox import token_mailed_to
from tests.contract.mini.asking import Reply
from tests.racing import at_once
from tests.signing_in import assert_refused, refresh, revoke, sign_in, who

ADDRESS, PASSWORD, NEW_PASSWORD = "dana@example.com", "a-linen-dress-in-may", "a-woollen-coat-in-march"


class Pair(NamedTuple):
    """The tokens of a session."""

    access: str
    refresh: str

    @property
    def header(self) -> dict[str, str]:
        """The access token as it is sent."""
        return {"authorization": f"Bearer {self.access}"}


def pair(reply: Reply) -> Pair:
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store"), reply.body
    return Pair(reply.json()["access_token"], reply.json()["refresh_token"])


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email=ADDRESS, hashed_password=hash_password(PASSWORD))


@pytest.fixture
def anybody(client_of: Callable[..., Client], user: User) -> Client:
    return client_of(None)


@pytest.fixture
def new_session(anybody: Client) -> Callable[[], Pair]:
    return lambda: pair(sign_in(anybody, ADDRESS, PASSWORD))


@pytest.fixture
def clock(app: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[time_machine.Coordinates]:
    # What was counted in the future would refuse the requests of today.
    monkeypatch.setattr(app.app.config["LIMITS"], "counters", MemoryCounters())
    with time_machine.travel(utc_now(), tick=False) as coordinates:
        yield coordinates


def assert_over(anybody: Client, tokens: Pair) -> None:
    """Nothing can be done with the tokens of a session any more."""
    for method, path in (("GET", "/users/me"), ("GET", "/brands/"), ("POST", "/logout")):
        assert_refused(anybody(method, path, headers=tokens.header))
    assert_refused(anybody("POST", "/brands/", {"name": "Atelier Sud"}, headers=tokens.header))
    assert_refused(refresh(anybody, tokens.refresh))


def assert_open(anybody: Client, tokens: Pair) -> None:
    assert who(anybody, tokens.access).status == 200


class Ends:
    """Each way in which the session of an account ends, for somebody who holds its tokens."""

    def __init__(self, app: Application, client_of: Callable[..., Client], user: User) -> None:
        self.app, self.user, self.anybody = app, user, client_of(None)
        self.superuser = client_of(factories.make_user(is_superuser=True))

    def by_logout(self, tokens: Pair) -> int:
        return self.anybody("POST", "/logout", headers=tokens.header).status

    def by_revoking_the_access_token(self, tokens: Pair) -> int:
        return revoke(self.anybody, tokens.access).status

    def by_revoking_the_refresh_token(self, tokens: Pair) -> int:
        return revoke(self.anybody, tokens.refresh).status

    def by_its_owner_in_the_list(self, tokens: Pair) -> int:
        mine = pair(sign_in(self.anybody, ADDRESS, PASSWORD))
        found = self.anybody("GET", "/users/me/sessions", headers=tokens.header).json()["data"]
        (session_id,) = [row["id"] for row in found if row["is_current"]]
        return self.anybody("DELETE", f"/users/me/sessions/{session_id}", headers=mine.header).status

    def by_a_change_of_the_password_elsewhere(self, tokens: Pair) -> int:
        mine = pair(sign_in(self.anybody, ADDRESS, PASSWORD))
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        return self.anybody("PATCH", "/users/me/password", body, headers=mine.header).status

    def by_recovery_of_the_password(self, tokens: Pair) -> int:
        assert self.anybody("POST", f"/password-recovery/{ADDRESS}").status == 200
        body = {"token": token_mailed_to(self.app, ADDRESS, "pr"), "new_password": NEW_PASSWORD}
        return self.anybody("POST", "/reset-password/", body).status

    def by_a_password_that_a_superuser_set(self, tokens: Pair) -> int:
        return self.superuser("PATCH", f"/users/{self.user.id}", {"password": NEW_PASSWORD}).status

    def by_locking_the_account(self, tokens: Pair) -> int:
        return self.superuser("PATCH", f"/users/{self.user.id}", {"is_active": False}).status

    def by_deleting_the_account(self, tokens: Pair) -> int:
        return self.superuser("DELETE", f"/users/{self.user.id}").status

    def by_a_second_use_of_a_refresh_token(self, tokens: Pair) -> int:
        for _ in range(2):
            assert refresh(self.anybody, tokens.refresh).status == 200
        return refresh(self.anybody, tokens.refresh).status


ENDS = {name: name.removeprefix("by_").replace("_", " ") for name in vars(Ends) if name.startswith("by_")}
FOR_THE_WHOLE_ACCOUNT = {
    "by_a_change_of_the_password_elsewhere",
    "by_recovery_of_the_password",
    "by_a_password_that_a_superuser_set",
    "by_locking_the_account",
    "by_deleting_the_account",
}


@pytest.mark.parametrize("end", ENDS, ids=ENDS.values())
def test_s16_a_session_that_was_ended_is_over_with_the_next_request(
    app: Application,
    client_of: Callable[..., Client],
    user: User,
    new_session: Callable[[], Pair],
    end: str,
) -> None:
    anybody, stranger = client_of(None), client_of(factories.make_user())
    mine, other = new_session(), new_session()
    assert_open(anybody, mine)
    assert getattr(Ends(app, client_of, user), end)(mine) in (200, 204, 401)
    assert_over(anybody, mine)
    if end in FOR_THE_WHOLE_ACCOUNT:
        assert_over(anybody, other)
    else:
        assert_open(anybody, other)
        assert refresh(anybody, other.refresh).status == 200
    assert stranger("GET", "/users/me").status == 200


def test_s16_who_changes_the_password_stays_signed_in(
    anybody: Client, new_session: Callable[[], Pair]
) -> None:
    mine, body = new_session(), {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert anybody("PATCH", "/users/me/password", body, headers=mine.header).status == 200
    assert_open(anybody, mine)
    assert refresh(anybody, mine.refresh).status == 200


def test_s16_an_account_that_is_unlocked_has_none_of_its_old_sessions(
    anybody: Client, client_of: Callable[..., Client], user: User, new_session: Callable[[], Pair]
) -> None:
    mine, root = new_session(), client_of(factories.make_user(is_superuser=True))
    for is_active in (False, True):
        assert root("PATCH", f"/users/{user.id}", {"is_active": is_active}).status == 200
        assert_over(anybody, mine)
    assert_open(anybody, new_session())


def test_s16_every_token_of_a_session_dies_with_any_of_them(
    anybody: Client, new_session: Callable[[], Pair]
) -> None:
    for pick in range(4):
        first = new_session()
        second = pair(refresh(anybody, first.refresh))
        assert_open(anybody, first)
        assert revoke(anybody, (*first, *second)[pick]).status == 200
        for tokens in (first, second):
            assert_over(anybody, tokens)


def test_s16_revocation_tells_nothing_and_harms_nobody(
    anybody: Client, new_session: Callable[[], Pair], clock: time_machine.Coordinates
) -> None:
    mine, over = new_session(), new_session()
    first = revoke(anybody, over.refresh, token_type_hint="access_token")
    assert (first.json(), first.headers["cache-control"]) == (
        {"message": "No session takes the token any more"},
        "no-store",
    )
    for token in (*over, "rt_0Zl1n2c3", "x", f"{mine.access}A", f"{mine.refresh}A", mine.refresh.upper()):
        for hint in ({}, {"token_type_hint": "refresh_token"}, {"token_type_hint": "of another kind"}):
            reply = revoke(anybody, token, **hint)
            assert (reply.status, reply.body) == (200, first.body)
    assert_open(anybody, mine)
    clock.shift(timedelta(hours=1, seconds=1))
    # An access token that ran out is none any more, also for this; the session goes on.
    assert revoke(anybody, mine.access).status == 200
    assert refresh(anybody, mine.refresh).status == 200


def test_s16_sessions_of_others_cannot_be_seen_or_ended(
    anybody: Client, client_of: Callable[..., Client], new_session: Callable[[], Pair]
) -> None:
    mine, other = new_session(), new_session()
    rows = anybody("GET", "/users/me/sessions", headers=mine.header).json()["data"]
    for stranger in (client_of(factories.make_user()), client_of(factories.make_user(is_superuser=True))):
        assert len(stranger("GET", "/users/me/sessions").json()["data"]) == 1
        for row in rows:
            assert stranger("DELETE", f"/users/me/sessions/{row['id']}").status == 404
    for tokens in (mine, other):
        assert_open(anybody, tokens)


def test_s17_an_old_refresh_token_after_its_successor_was_used_ends_the_family(
    anybody: Client, new_session: Callable[[], Pair]
) -> None:
    first, other = new_session(), new_session()
    second = pair(refresh(anybody, first.refresh))
    third = pair(refresh(anybody, second.refresh))
    assert_refused(refresh(anybody, first.refresh))
    for tokens in (first, second, third):
        assert_over(anybody, tokens)
    assert_open(anybody, other)


@pytest.mark.parametrize(("seconds", "is_tolerated"), [(0, True), (9.9, True), (10.1, False), (3600, False)])
def test_s17_an_answer_that_was_lost_can_be_asked_for_again_for_ten_seconds(
    anybody: Client,
    new_session: Callable[[], Pair],
    clock: time_machine.Coordinates,
    seconds: float,
    is_tolerated: bool,
) -> None:
    first = new_session()
    lost = pair(refresh(anybody, first.refresh))
    clock.shift(timedelta(seconds=seconds))
    again = refresh(anybody, first.refresh)
    if not is_tolerated:
        assert_refused(again)
        assert_over(anybody, lost)
        return
    got = pair(again)
    assert len({first.refresh, lost.refresh, got.refresh}) == 3
    assert_open(anybody, got)
    assert refresh(anybody, got.refresh).status == 200


def test_s17_the_successor_that_was_given_up_ends_the_family_when_it_comes_all_the_same(
    anybody: Client, new_session: Callable[[], Pair]
) -> None:
    first = new_session()
    lost = pair(refresh(anybody, first.refresh))
    got = pair(refresh(anybody, first.refresh))
    assert_refused(refresh(anybody, lost.refresh))
    for tokens in (first, lost, got):
        assert_over(anybody, tokens)


def test_s17_one_lost_answer_is_tolerated_and_no_second_one(
    anybody: Client, new_session: Callable[[], Pair]
) -> None:
    first = new_session()
    got = [pair(refresh(anybody, first.refresh)) for _ in range(2)]
    assert_refused(refresh(anybody, first.refresh))
    for tokens in (first, *got):
        assert_over(anybody, tokens)


def test_s17_each_renewal_may_lose_its_answer_once(
    anybody: Client, new_session: Callable[[], Pair], clock: time_machine.Coordinates
) -> None:
    tokens = new_session()
    for _ in range(5):
        assert refresh(anybody, tokens.refresh).status == 200
        clock.shift(timedelta(seconds=5))
        tokens = pair(refresh(anybody, tokens.refresh))
    assert_open(anybody, tokens)


def test_s17_a_session_ends_on_its_day_however_it_was_renewed(
    anybody: Client,
    user: User,
    new_session: Callable[[], Pair],
    clock: time_machine.Coordinates,
    database: Database,
) -> None:
    tokens = new_session()

    def end() -> Any:
        with database.transaction(write=False) as reading:
            family = reading.scalars(select(TokenFamily)).one()
            ends = {family.expires_at, *reading.scalars(select(RefreshToken.expires_at))}
        return ends

    (ends_at,) = end()
    assert ends_at - utc_now() == timedelta(days=30)
    for _ in range(29):
        clock.shift(timedelta(days=1))
        lost = pair(refresh(anybody, tokens.refresh))
        tokens = pair(refresh(anybody, tokens.refresh))
        assert lost != tokens
    assert end() == {ends_at}
    clock.shift(timedelta(hours=23, minutes=59))
    last = refresh(anybody, tokens.refresh)
    assert last.json()["expires_in"] == 60
    clock.shift(timedelta(seconds=60))
    # Neither the newest token nor a retry of the last renewal opens it again.
    assert_over(anybody, pair(last))
    assert_refused(refresh(anybody, tokens.refresh))


def signed_in(committed: Committed) -> tuple[Client, Pair]:
    """Somebody without a token of the server whose requests commit, and a session there."""
    client, database, production = committed
    with database.transaction(write=True) as writing:
        owner = writing.get_one(User, production.owner.id)
        owner.hashed_password = hash_password(PASSWORD)
        address = owner.email
    anybody = Client(client.app)
    return anybody, pair(sign_in(anybody, address, PASSWORD))


def refresh_at_once(client: Client, tokens: list[str]) -> list[Reply]:
    """The answers to renewals that are sent at the same moment."""
    return at_once(*[partial(refresh, client, token) for token in tokens])


def test_s17_of_many_at_once_two_get_an_answer_and_then_the_family_is_dead(committed: Committed) -> None:
    anybody, tokens = signed_in(committed)
    replies = refresh_at_once(anybody, [tokens.refresh] * 8)
    assert sorted(reply.status for reply in replies) == [200, 200, *[401] * 6]
    for reply in replies:
        if reply.status == 200:
            assert_over(anybody, pair(reply))


def test_s17_of_two_at_once_one_has_the_session(committed: Committed, long_form: bool) -> None:
    for _ in range(20 if long_form else 2):
        anybody, tokens = signed_in(committed)
        got = [pair(reply) for reply in refresh_at_once(anybody, [tokens.refresh] * 2)]
        with committed.database.transaction(write=False) as reading:
            family = reading.scalars(select(TokenFamily).order_by(TokenFamily.created_at.desc())).first()
            assert family is not None
            unused = RefreshToken.used_at.is_(None) & (RefreshToken.family_id == family.id)
            assert len(reading.scalars(select(RefreshToken).where(unused)).all()) == 1
        # The other one is the thief, or its owner who lost: nobody can tell, so both are out.
        statuses = [refresh(anybody, tokens.refresh).status for tokens in got]
        assert sorted(statuses) in ([200, 401], [401, 401])
        assert_over(anybody, got[0])
        assert_over(anybody, got[1])


def test_s17_a_retry_and_the_use_of_what_was_lost_at_once_end_the_family(
    committed: Committed, long_form: bool
) -> None:
    for _ in range(20 if long_form else 2):
        anybody, tokens = signed_in(committed)
        lost = pair(refresh(anybody, tokens.refresh))
        replies = refresh_at_once(anybody, [tokens.refresh, lost.refresh])
        assert sorted(reply.status for reply in replies) == [200, 401]
        (won,) = (pair(reply) for reply in replies if reply.status == 200)
        for one in (tokens, lost, won):
            assert_over(anybody, one)
