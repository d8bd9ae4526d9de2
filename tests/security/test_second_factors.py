"""A stolen password does not sign in to an account with a second factor, and a stolen code works once."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from db.base import utc_now
from db.models import AuditEvent, Membership, Organization, User
from db.models.second_factors import SecondFactor
from db.session import Database
from handlers.app import Application
from studio.accounts.identity.second_factors import read_secret
from studio.infrastructure.telemetry.logs import ContextFilter
from studio.jobs.encryption import encrypt_again
from tests.api.conftest import Client, CommittingServer
from tests.security.rate_limits import exceeded_policy
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.auth import sign_in
from tests.support.client import ClientResponse
from tests.support.concurrency import run_concurrently
from tests.support.mailbox import get_mailed_token
from tests.support.passkeys import SoftwarePasskey, decode
from tests.support.second_factors import (
    FACTORS,
    PASSWORD,
    add_passkey,
    add_totp,
    answer,
    enroll_totp,
    get_challenge,
    get_code,
    make_account,
)


@pytest.fixture
def user(database: Database) -> User:
    return make_account(email="dana@example.com")


def outcome(response: ClientResponse) -> tuple[int, str]:
    return response.status, response.json().get("code", "")


WRONG, ENDED = (401, "incorrect_second_factor"), (401, "challenge_ended")


def test_s56_a_code_works_once_and_no_older_one_after_it(
    app: Application, anonymous: Client, user: User
) -> None:
    secret = add_totp(app, user)
    first, second = (get_challenge(anonymous, user)["challenge"] for _ in range(2))
    code = get_code(secret)
    assert answer(anonymous, first, otp=code).status == 200
    assert outcome(answer(anonymous, second, otp=code)) == WRONG
    assert outcome(answer(anonymous, second, otp=get_code(secret, -1))) == WRONG
    assert answer(anonymous, second, otp=get_code(secret, 1)).status == 200


def test_s56_a_challenge_works_once_for_its_account_and_with_its_password(
    app: Application, anonymous: Client, user: User, client_for: Callable[..., Client]
) -> None:
    secret = add_totp(app, user)
    challenge = get_challenge(anonymous, user)["challenge"]
    other = make_account()
    other_secret = add_totp(app, other)
    # A code of another account does not fit, neither here nor there.
    assert outcome(answer(anonymous, challenge, otp=get_code(other_secret))) == WRONG
    its = get_challenge(anonymous, other)["challenge"]
    assert outcome(answer(anonymous, its, otp=get_code(secret))) == WRONG
    assert answer(anonymous, challenge, otp=get_code(secret)).status == 200
    assert outcome(answer(anonymous, challenge, otp=get_code(secret, 1))) == ENDED
    # A challenge from before a change of the password, and one of a deactivated account.
    stale = get_challenge(anonymous, user)["challenge"]
    change = {"current_password": PASSWORD, "new_password": "another-linen-dress"}
    assert client_for(user)("PATCH", "/users/me/password", change).status == 200
    assert outcome(answer(anonymous, stale, otp=get_code(secret, 1))) == ENDED
    blocked = get_challenge(anonymous, other)["challenge"]
    other.is_active = False
    factories.make(other)
    assert outcome(answer(anonymous, blocked, otp=get_code(other_secret))) == ENDED
    assert outcome(answer(anonymous, "sf_unknown", otp="123456")) == ENDED
    # The challenge of a registration starts no session.
    new = client_for(make_account())
    started = new("POST", f"{FACTORS}/passkeys/options", {"password": PASSWORD}).json()
    registration = decode(json.loads(started["options"])["challenge"]).decode()
    assert outcome(answer(anonymous, registration, otp="123456")) == ENDED


def test_s56_the_sixth_answer_to_a_challenge_is_not_verified(
    app: Application, anonymous: Client, user: User
) -> None:
    secret = add_totp(app, user)
    challenge = get_challenge(anonymous, user)["challenge"]
    wrong = [answer(anonymous, challenge, otp="000000") for _ in range(5)]
    assert [response.json()["attempts_left"] for response in wrong] == [4, 3, 2, 1, 0]
    assert outcome(answer(anonymous, challenge, otp=get_code(secret))) == ENDED
    # Another sign-in with the password goes on.
    assert answer(anonymous, get_challenge(anonymous, user)["challenge"], otp=get_code(secret)).status == 200


def test_s56_wrong_answers_count_as_wrong_passwords_of_the_account(
    set_limits: Callable[..., Any], app: Application, anonymous: Client, user: User
) -> None:
    set_limits(limit_sign_in_account=3)
    add_totp(app, user)
    for _ in range(3):
        # The right password gives its attempt back; each wrong code takes one.
        assert outcome(answer(anonymous, get_challenge(anonymous, user)["challenge"], otp="000000")) == WRONG
    assert exceeded_policy(sign_in(anonymous, user.email, PASSWORD)) == "sign-in-account"


def test_s56_a_code_for_a_change_is_limited_like_a_password(
    set_limits: Callable[..., Any], app: Application, client: Client, user: User
) -> None:
    set_limits(limit_sign_in_account=2)
    add_totp(app, user)
    path = f"{FACTORS}/recovery-codes"
    assert [client("POST", path, {"otp": "000000"}).status for _ in range(3)] == [409, 409, 429]


def test_s56_a_recovery_code_works_once(
    app: Application, client: Client, anonymous: Client, user: User
) -> None:
    _, body = enroll_totp(client)
    code = body["recovery_codes"][0]
    assert answer(anonymous, get_challenge(anonymous, user)["challenge"], otp=code).status == 200
    assert outcome(answer(anonymous, get_challenge(anonymous, user)["challenge"], otp=code)) == WRONG


def test_s56_parallel_sign_ins_with_one_code_or_one_challenge_start_one_session(
    committing_server: CommittingServer, application: Application
) -> None:
    with committing_server.database.transaction(write=True):
        user = make_account(email="parallel@example.com")
        secret = add_totp(application, user)
        headers = auth_headers(application, user)
    anonymous = Client(application)
    codes = Client(application, headers)("POST", f"{FACTORS}/recovery-codes", {"password": PASSWORD})
    code = codes.json()["recovery_codes"][0]
    challenges = [get_challenge(anonymous, user)["challenge"] for _ in range(4)]
    for otp in (get_code(secret), code):
        answers = run_concurrently(*(partial(answer, anonymous, each, otp=otp) for each in challenges))
        challenges = [
            each for each, response in zip(challenges, answers, strict=True) if response.status == 401
        ]
        assert Counter(map(outcome, answers)) == {(200, ""): 1, WRONG: len(answers) - 1}
    one = get_challenge(anonymous, user)["challenge"]
    with_codes = [partial(answer, anonymous, one, otp=each) for each in codes.json()["recovery_codes"][1:4]]
    answers = run_concurrently(*with_codes)
    assert Counter(map(outcome, answers)) == {(200, ""): 1, ENDED: 2}


def test_s56_a_removed_factor_does_not_sign_in(
    app: Application, client: Client, anonymous: Client, user: User
) -> None:
    passkey = SoftwarePasskey(app.settings.public_url)
    row = add_passkey(client, passkey).json()
    secret, _ = enroll_totp(client)
    problem = get_challenge(anonymous, user)
    assert client("POST", f"{FACTORS}/{row['id']}/remove", {"password": PASSWORD}).status == 204
    challenge = problem["challenge"]
    assert outcome(answer(anonymous, challenge, webauthn=passkey.get(problem["webauthn"]))) == WRONG
    assert "webauthn" not in get_challenge(anonymous, user)
    assert answer(anonymous, challenge, otp=get_code(secret, 1)).status == 200


def test_s56_a_passkey_signs_in_from_the_origin_of_the_server_for_its_challenge_and_with_a_new_count(
    app: Application, client: Client, anonymous: Client, user: User
) -> None:
    passkey = SoftwarePasskey(app.settings.public_url)
    assert add_passkey(client, passkey).status == 201
    problem = get_challenge(anonymous, user)

    def use(webauthn: str) -> tuple[int, str]:
        return outcome(answer(anonymous, get_challenge(anonymous, user)["challenge"], webauthn=webauthn))

    def get(options: str | None = None) -> str:
        return passkey.get(options or get_challenge(anonymous, user)["webauthn"])

    # An answer to another challenge, from another page, for another site, of another key, and no answer.
    assert use(get(problem["webauthn"])) == WRONG
    challenge = problem["challenge"]
    for changed in (
        {"origin": "https://evil.example"},
        {"rp_id": "evil.example"},
        {"_key": SoftwarePasskey("")._key},
        {"credential_id": b"unknown"},
    ):
        before = {name: getattr(passkey, name) for name in changed}
        vars(passkey).update(changed)
        response = answer(anonymous, challenge, webauthn=passkey.get(problem["webauthn"]))
        vars(passkey).update(before)
        assert outcome(response) == WRONG, changed
    assert use("{}") == WRONG
    assert use("[" * 8000) == WRONG


def test_s56_a_passkey_whose_count_does_not_rise_is_rejected(
    app: Application, client: Client, anonymous: Client, user: User
) -> None:
    passkey = SoftwarePasskey(app.settings.public_url)
    add_passkey(client, passkey)
    passkey.sign_count = 7
    problem = get_challenge(anonymous, user)
    assert answer(anonymous, problem["challenge"], webauthn=passkey.get(problem["webauthn"])).status == 200
    passkey.sign_count = 7
    problem = get_challenge(anonymous, user)
    copied = answer(anonymous, problem["challenge"], webauthn=passkey.get(problem["webauthn"]))
    assert outcome(copied) == WRONG


def test_s56_a_new_password_by_e_mail_does_not_replace_the_second_factor(
    app: Application, anonymous: Client, user: User
) -> None:
    add_totp(app, user)
    anonymous("POST", f"/password-recovery/{user.email}")
    token = get_mailed_token(app, user.email, "pr")
    new = {"token": token, "new_password": PASSWORD + "-2"}
    assert anonymous("POST", "/reset-password/", new).status == 200
    assert outcome(sign_in(anonymous, user.email, PASSWORD + "-2")) == (401, "second_factor_required")


@pytest.mark.parametrize(("days", "status"), [(-1 / 24, 403), (1 / 24, 200)])
def test_s56_a_requirement_of_an_organization_starts_on_time_for_sessions_of_all_members(
    app: Application, client_for: Callable[..., Client], database: Database, days: float, status: int
) -> None:
    member = make_account()
    organization = factories.make_organization(member)
    brand = factories.make_brand(organization=organization)
    since = {"second_factor_from": utc_now() + timedelta(days=days)}
    for query in (
        update(Organization).where(Organization.id == organization.id),
        update(Membership).where(Membership.organization_id == organization.id),
    ):
        factories.get_session().execute(query.values(since))
    assert client_for(member)("GET", f"/brands/{brand.id}").status == status
    secret = add_totp(app, member)
    assert secret
    assert client_for(member)("GET", f"/brands/{brand.id}").status == 200


def test_s56_an_idempotent_replay_is_withheld_too(
    app: Application, client_for: Callable[..., Client], database: Database
) -> None:
    member = make_account()
    organization = factories.make_organization(member)
    client, path = client_for(member), f"/brands/?organization_id={organization.id}"
    key = {"idempotency-key": "01990000-5eed-4000-8000-000000000056"}
    assert client("POST", path, {"name": "Atelier"}, headers=key).status == 201
    members = update(Membership).where(Membership.organization_id == organization.id)
    factories.get_session().execute(members.values(second_factor_from=utc_now() - timedelta(hours=1)))
    replayed = client("POST", path, {"name": "Atelier"}, headers=key)
    assert outcome(replayed) == (403, "second_factor_enrollment_required")


def test_s56_sign_ins_without_the_factor_are_in_the_audit_log(
    app: Application, anonymous: Client, user: User
) -> None:
    secret = add_totp(app, user)
    challenge = get_challenge(anonymous, user)["challenge"]
    answer(anonymous, challenge, otp="000000")
    answer(anonymous, challenge, otp=get_code(secret))
    query = select(AuditEvent.outcome, AuditEvent.reason).where(AuditEvent.action == "login")
    events = factories.get_session().execute(query.order_by(AuditEvent.created_at)).all()
    assert list(map(tuple, events)) == [
        ("refused", "second_factor_required"),
        ("refused", "incorrect_second_factor"),
        ("succeeded", None),
    ]


def test_s56_no_log_line_and_no_audit_event_has_data_of_factors(
    app: Application, client: Client, anonymous: Client, user: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(ContextFilter())
    with caplog.at_level(logging.DEBUG):
        secret, body = enroll_totp(client)
        passkey = SoftwarePasskey(app.settings.public_url)
        add_passkey(client, passkey)
        problem = get_challenge(anonymous, user)
        code = get_code(secret, 1)
        answer(anonymous, problem["challenge"], otp="000000")
        answer(anonymous, problem["challenge"], webauthn=passkey.get(problem["webauthn"]))
        answer(anonymous, get_challenge(anonymous, user)["challenge"], otp=code)
    logged = "".join(f"{vars(record)} {record.getMessage()}" for record in caplog.records)
    events = factories.get_session().scalars(select(AuditEvent.changes)).all()
    recorded = logged + json.dumps(events)
    assert "login" in logged
    for value in (secret, code, *body["recovery_codes"], problem["challenge"], PASSWORD):
        assert value not in recorded


def test_s56_the_secret_of_an_app_is_encrypted_and_rotated_with_the_key_of_the_server(
    app: Application, user: User, database: Database
) -> None:
    secret = add_totp(app, user)
    factor = factories.get_session().scalars(select(SecondFactor)).one()
    assert factor.secret is not None
    assert secret.encode() not in factor.secret
    rotated = replace(
        app.settings, secret_key="k" * 20 + "0123456789abcdef", secret_key_previous=app.settings.secret_key
    )
    assert encrypt_again(database, rotated) == 1
    assert encrypt_again(database, rotated) == 0
    factories.get_session().refresh(factor)
    assert read_secret(factor, replace(rotated, secret_key_previous=None)) == secret
    assert read_secret(factor, app.settings) is None
