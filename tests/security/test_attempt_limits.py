"""Password guessing is limited, and an attacker cannot lock out the owner of an account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, select

from db.base import utc_now
from db.models import AttemptCount, KnownAddress, TokenFamily, User
from db.queries.statements import DELETE_BATCH_SIZE
from db.session import Database
from handlers.app import Application
from studio.accounts.identity import sessions
from studio.accounts.identity.passwords import hash_password
from studio.rate_limits.attempts import (
    TRUSTED_FOR,
    Attempt,
    consume,
    delete_expired_attempts,
    trust_address,
)
from studio.rate_limits.limiter import now_ms
from studio.rate_limits.limits import QuotaPolicies
from tests.api.conftest import Client, CommittingServer
from tests.security.rate_limits import NOON, AppFromAddress, exceeded_policy
from tests.support import factories
from tests.support.app import auth_headers, create_test_app
from tests.support.client import ClientResponse
from tests.support.mailbox import get_mailed_token, list_emails_to

PASSWORD = "a-linen-dress-in-may"
HASHED = hash_password(PASSWORD)
HOME, ELSEWHERE = "192.0.2.1", "203.0.113.66"
FORM = {"content-type": "application/x-www-form-urlencoded"}

Limited = Callable[..., Any]


@pytest.fixture
def dana(database: Database) -> User:
    return factories.make_user(email="dana@example.com", hashed_password=HASHED)


def client_at(app: Application, address: str) -> Client:
    return Client(AppFromAddress(app, address))


def sign_in(client: Client, password: str = PASSWORD, email: str = "dana@example.com") -> ClientResponse:
    form = urlencode({"username": email, "password": password}).encode()
    return client("POST", "/login/access-token", body=form, headers=FORM)


def get_remaining(response: ClientResponse, policy: str) -> int:
    """Return the units of a limit that are left, from the headers of a response."""
    outcomes = dict(item.split(";")[:2] for item in response.headers["ratelimit"].split(", "))
    return int(outcomes[f'"{policy}"'].removeprefix("r="))


def comparable_response(response: ClientResponse) -> tuple[int, dict[str, str], bytes]:
    """Return a response without the parts that differ in every response."""
    headers = {**response.headers, "x-request-id": ""}
    return response.status, headers, response.body.replace(response.headers["x-request-id"].encode(), b"")


def count_rejections(policy: str) -> float:
    return REGISTRY.get_sample_value("sartiq_rate_limited_total", {"policy": policy}) or 0.0


def test_s13_ten_wrong_attempts_are_allowed_for_any_account_whether_or_not_it_exists(
    set_limits: Limited, app: Application, dana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(limit_sign_in_account=10)
    factories.make_user(email="idle@example.com", hashed_password=HASHED, is_active=False)
    before, outcomes = count_rejections("sign-in-account"), []
    for number, email in enumerate(("dana@example.com", "idle@example.com", "nobody@example.com")):
        client = client_at(app, f"192.0.2.{number}")
        wrong = [sign_in(client, f"wrong {count}", email) for count in range(10)]
        assert [(response.status, get_remaining(response, "sign-in-account")) for response in wrong] == [
            (401, 9 - count) for count in range(10)
        ]
        with monkeypatch.context() as patch:
            # Over the limit, the password is not verified: this saves CPU time and reveals nothing.
            patch.delattr(sessions, "verify_password")
            late = [sign_in(client, "wrong", email), sign_in(client, PASSWORD, email.upper())]
        assert [exceeded_policy(response) for response in late] == ["sign-in-account"] * 2
        outcomes.append([comparable_response(response) for response in (*wrong, *late)])
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert late[0].headers["retry-after"] == "90"
    assert late[0].json() == {
        "type": "http://localhost:8000/api/v1/problems/rate_limited",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Too many requests; try again in 90 seconds",
        "code": "rate_limited",
        "policy": "sign-in-account",
        "request_id": late[0].headers["x-request-id"],
    }
    assert count_rejections("sign-in-account") == before + 6


def test_s13_the_owner_can_sign_in_after_the_retry_time_and_at_once_from_a_known_address(
    set_limits: Limited, app: Application, dana: User
) -> None:
    clock = set_limits(limit_sign_in_account=3)
    home, elsewhere, new_address = (
        client_at(app, HOME),
        client_at(app, ELSEWHERE),
        client_at(app, "198.51.100.7"),
    )
    assert sign_in(home).status == 200
    assert [sign_in(elsewhere, "wrong").status for _ in range(4)] == [401, 401, 401, 429]
    assert exceeded_policy(sign_in(new_address)) == "sign-in-account"
    assert [sign_in(home).status for _ in range(5)] == [200] * 5
    # A known address has its own quota; it is not exempt from the limit.
    assert [sign_in(home, "wrong").status for _ in range(4)] == [401, 401, 401, 429]
    assert exceeded_policy(sign_in(home)) == "sign-in-account"
    clock.now += 300_000
    assert sign_in(new_address).status == 200
    assert sign_in(home).status == 200
    clock.now += int(TRUSTED_FOR.total_seconds() * 1000) + 1
    assert [sign_in(elsewhere, "wrong").status for _ in range(4)] == [401, 401, 401, 429]
    assert exceeded_policy(sign_in(home)) == "sign-in-account"


def test_s13_open_sessions_and_mailed_tokens_work_while_password_attempts_are_limited(
    set_limits: Limited, app: Application, dana: User
) -> None:
    set_limits(limit_sign_in_account=2, limit_recovery_account=2)
    new_address, elsewhere = client_at(app, "198.51.100.7"), client_at(app, ELSEWHERE)
    session = sign_in(client_at(app, HOME)).json()
    assert [sign_in(elsewhere, "wrong").status for _ in range(3)] == [401, 401, 429]
    renewed = client_at(app, ELSEWHERE)(
        "POST", "/login/refresh-token", {"refresh_token": session["refresh_token"]}
    )
    assert renewed.status == 200
    for _ in range(2):
        assert elsewhere("POST", "/password-recovery/dana@example.com").status == 200
    assert exceeded_policy(new_address("POST", "/password-recovery/dana@example.com")) == "recovery-account"
    assert client_at(app, HOME)("POST", "/password-recovery/dana@example.com").status == 200
    # The token was mailed to the owner, so it proves the owner's identity from any address.
    token = get_mailed_token(app, "dana@example.com", "pr")
    change = {"token": token, "new_password": "another-linen-dress"}
    assert new_address("POST", "/reset-password/", change).status == 200
    assert sign_in(new_address, "another-linen-dress").status == 200
    assert exceeded_policy(sign_in(elsewhere, "another-linen-dress")) == "sign-in-account"


def test_s13_correct_passwords_do_not_consume_the_quota(
    set_limits: Limited, app: Application, dana: User, database: Database
) -> None:
    set_limits(limit_sign_in_account=2, limit_sign_in_address=2)
    client = client_at(app, HOME)
    for _ in range(5):
        response = sign_in(client)
        assert response.status == 200
        assert (get_remaining(response, "sign-in-account"), get_remaining(response, "sign-in-address")) == (
            2,
            2,
        )
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(AttemptCount)).all() == []


def test_s13_a_hundred_wrong_attempts_are_allowed_from_one_address(
    set_limits: Limited, app: Application, dana: User, long_form: bool
) -> None:
    limit = 100 if long_form else 12
    set_limits(limit_sign_in_account=10, limit_sign_in_address=limit)
    client = client_at(app, ELSEWHERE)
    for number in range(limit):
        assert sign_in(client, "wrong", f"nobody{number}@example.com").status == 401
    late = sign_in(client)
    assert (exceeded_policy(late), late.headers["retry-after"]) == ("sign-in-address", str(-(-900 // limit)))
    assert exceeded_policy(client("POST", "/password-recovery/dana@example.com")) == "sign-in-address"
    # A rejected attempt does not consume the quota of the account.
    assert get_remaining(sign_in(client_at(app, HOME), "wrong"), "sign-in-account") == 9


def test_s13_password_recovery_is_limited_the_same_way_whether_or_not_the_account_exists(
    set_limits: Limited, app: Application, dana: User
) -> None:
    clock, emails_before = set_limits(limit_recovery_account=5), len(list_emails_to(app, "dana@example.com"))
    outcomes = []
    for number, email in enumerate(("dana@example.com", "nobody@example.com")):
        client = client_at(app, f"192.0.2.{number}")
        responses = [client("POST", f"/password-recovery/{email}") for _ in range(6)]
        assert [response.status for response in responses] == [200] * 5 + [429]
        assert exceeded_policy(client("POST", f"/password-recovery/{email.upper()}")) == "recovery-account"
        outcomes.append([comparable_response(response) for response in responses])
    assert outcomes[0] == outcomes[1]
    assert responses[5].headers["retry-after"] == "720"
    assert len(list_emails_to(app, "dana@example.com")) == emails_before + 5
    clock.now += 720_000
    assert client_at(app, ELSEWHERE)("POST", "/password-recovery/dana@example.com").status == 200


def test_s13_parallel_attempts_do_not_exceed_the_limit(
    set_limits: Limited, committing_server: CommittingServer, long_form: bool
) -> None:
    set_limits(limit_sign_in_account=10, limit_sign_in_address=25)
    count = 200 if long_form else 32
    app = committing_server.client.app
    with committing_server.database.transaction(write=True) as writing:
        writing.add(User(email="dana@example.com", hashed_password=HASHED))
    with ThreadPoolExecutor(16) as pool:
        clients = [client_at(app, f"192.0.2.{number}") for number in range(count)]
        at_one_account = list(pool.map(sign_in, clients, ["wrong"] * count))
        emails = [f"nobody{number}@example.com" for number in range(count)]
        from_one_address = list(
            pool.map(sign_in, [client_at(app, ELSEWHERE)] * count, ["wrong"] * count, emails)
        )
    for responses, policy, limit in (
        (at_one_account, "sign-in-account", 10),
        (from_one_address, "sign-in-address", 25),
    ):
        assert Counter(response.status for response in responses) == {401: limit, 429: count - limit}
        assert {exceeded_policy(response) for response in responses if response.status == 429} == {policy}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/login/refresh-token", {"refresh_token": "rt_wrong"}),
        ("/reset-password/", {"token": "pr_wrong", "new_password": PASSWORD}),
        ("/email-change/confirm", {"token": "ec_wrong"}),
        ("/invitations/accept", {"token": "iv_wrong", "password": PASSWORD}),
    ],
)
def test_s13_wrong_tokens_are_counted_by_address_and_valid_tokens_are_always_accepted(
    path: str, body: dict[str, str], set_limits: Limited, app: Application, dana: User
) -> None:
    set_limits(limit_sign_in_address=3)
    client = client_at(app, ELSEWHERE)
    valid = sign_in(client).json()["refresh_token"]
    wrong = [client("POST", path, body) for _ in range(4)]
    assert [response.status for response in wrong] == [401, 401, 401, 429]
    assert [get_remaining(response, "sign-in-address") for response in wrong] == [2, 1, 0, 0]
    assert exceeded_policy(wrong[3]) == "sign-in-address"
    assert exceeded_policy(sign_in(client)) == "sign-in-address"
    assert client("POST", "/login/refresh-token", {"refresh_token": valid}).status == 200
    assert client_at(app, HOME)("POST", path, body).status == 401


def test_s13_a_stolen_session_cannot_be_used_to_guess_the_password(
    set_limits: Limited, app: Application, dana: User
) -> None:
    set_limits(limit_sign_in_account=3)
    organization, thief, owner = (
        factories.make_organization(dana),
        auth_headers(app, dana),
        auth_headers(app, dana),
    )
    client = Client(app)
    guesses = [
        ("PATCH", "/users/me/password", {"current_password": "wrong", "new_password": "another-dress"}),
        ("PATCH", "/users/me", {"current_password": "wrong", "email": "thief@example.com"}),
        ("POST", f"/organizations/{organization.id}/transfer-ownership",
         {"password": "wrong", "user_id": str(dana.id)}),
    ]  # fmt: skip
    outcomes = [client(*guess, headers=thief) for guess in guesses]
    assert [(response.status, response.json()["code"]) for response in outcomes] == [
        (409, "incorrect_password")
    ] * 3
    assert [get_remaining(response, "sign-in-account") for response in outcomes] == [2, 1, 0]
    assert [exceeded_policy(client(*guess, headers=thief)) for guess in guesses] == ["sign-in-account"] * 3
    assert client("PATCH", "/users/me", {"full_name": "D"}, headers=thief).status == 200
    # The guesses consume no quota of the owner's session or sign-in, and neither do other errors.
    change = {"current_password": PASSWORD, "new_password": "another-dress"}
    to_self = {"password": PASSWORD, "user_id": str(dana.id)}
    response = client("POST", f"/organizations/{organization.id}/transfer-ownership", to_self, headers=owner)
    assert (response.json()["code"], get_remaining(response, "sign-in-account")) == ("already_owner", 3)
    response = client("PATCH", "/users/me/password", change, headers=owner)
    assert (response.status, get_remaining(response, "sign-in-account")) == (200, 3)
    assert get_remaining(sign_in(client, "wrong"), "sign-in-account") == 2


def test_s13_the_number_of_emails_to_one_address_is_limited(
    set_limits: Limited, app: Application, dana: User
) -> None:
    clock = set_limits(limit_mails=3)
    victim, before = "victim@example.com", len(list_emails_to(app, "victim@example.com"))
    client, path = Client(app, auth_headers(app, dana)), "/organizations/{}/invitations"
    paths = [path.format(factories.make_organization(dana).id) for _ in range(2)]
    change, invitation = {"email": victim, "current_password": PASSWORD}, {"email": victim, "role": "viewer"}
    outcomes = [client("POST", paths[0], invitation), client("POST", paths[1], invitation)]
    outcomes += [client("PATCH", "/users/me", change)]
    assert [(response.status < 300, get_remaining(response, "mails")) for response in outcomes] == [
        (True, 2),
        (True, 1),
        (True, 0),
    ]
    late = [client("POST", paths[0], invitation), client("PATCH", "/users/me", {**change, "full_name": "D"})]
    assert [exceeded_policy(response) for response in late] == ["mails"] * 2
    # A rejected request changes nothing: the invitation stays open and the name is unchanged.
    assert client("GET", paths[0]).json()["data"] == [outcomes[0].json()]
    assert client("GET", "/users/me").json()["full_name"] == outcomes[2].json()["full_name"]
    assert len(list_emails_to(app, victim)) == before + 3
    # Requests that send no e-mail take no unit, and accounts do not share a quota.
    assert client("PATCH", "/users/me", {"email": dana.email, "full_name": "D"}).status == 200
    assert client("POST", paths[0], {**invitation, "email": dana.email}).json()["code"] == "already_member"
    other = factories.make_user()
    other_path = path.format(factories.make_organization(other).id)
    assert Client(app, auth_headers(app, other))("POST", other_path, invitation).status == 201
    clock.now += 20 * 60_000
    assert client("POST", paths[0], invitation).status == 201


def test_s13_attempt_counts_survive_a_restart_of_the_server(
    set_limits: Limited, app: Application, dana: User, database: Database, tmp_path: Path
) -> None:
    set_limits(limit_sign_in_account=3)
    assert sign_in(client_at(app, HOME)).status == 200
    assert [sign_in(client_at(app, ELSEWHERE), "wrong").status for _ in range(3)] == [401] * 3
    restarted = create_test_app(tmp_path)
    limits = restarted.services.rate_limiter
    limits.policies, limits.clock = app.services.rate_limiter.policies, lambda: NOON
    with restarted.database.switched_to(database):
        assert exceeded_policy(sign_in(client_at(restarted, ELSEWHERE))) == "sign-in-account"
        assert sign_in(client_at(restarted, HOME)).status == 200
    restarted.bridge.pool.shutdown()


def test_s13_attempt_counters_hold_no_personal_data_and_are_deleted_when_expired(
    set_limits: Limited, app: Application, dana: User, database: Database
) -> None:
    clock = set_limits()
    clock.now = now_ms()
    sign_in(client_at(app, HOME))
    sign_in(client_at(app, ELSEWHERE), "wrong", "stranger@example.com")
    policy = QuotaPolicies.from_settings(app.settings).sign_in_account
    with database.transaction(write=True) as writing:
        connection = writing.connection()
        stored = [
            str(connection.execute(select(model.__table__)).all()) for model in (AttemptCount, KnownAddress)
        ]
        consume([Attempt(policy, f"old {number}") for number in range(DELETE_BATCH_SIZE + 1)], NOON - 10**12)
        trust_address("secret", dana.id, "another", NOON - 10**12)
    for name in ("dana", "stranger", HOME, ELSEWHERE):
        assert name not in "".join(stored)
    delete_expired_attempts(database, utc_now())
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(KnownAddress)) == 1
        assert not reading.scalars(
            select(AttemptCount).where(AttemptCount.subject_hash.startswith("old"))
        ).all()
    delete_expired_attempts(database, utc_now() + timedelta(days=91))
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(AttemptCount)) == 0
        assert reading.scalar(select(func.count()).select_from(KnownAddress)) == 0
        assert reading.scalar(select(func.count()).select_from(TokenFamily)) == 1
