"""Second factors: enrollment, sign-ins that need one, and organizations that require one, through the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from db.base import utc_now
from db.models import Membership, Organization, User
from db.models.second_factors import SecondFactor, SecondFactorChallenge
from db.session import Database
from handlers.app import Application
from tests.api.conftest import Client
from tests.support import factories
from tests.support.auth import FORM, get_token_owner, sign_in
from tests.support.client import ClientResponse
from tests.support.factories.api_keys import api_key_headers
from tests.support.mailbox import list_emails_to
from tests.support.passkeys import SoftwarePasskey
from tests.support.second_factors import (
    FACTORS,
    PASSWORD,
    add_passkey,
    add_totp,
    answer,
    enroll_totp,
    forget_steps,
    get_challenge,
    get_code,
    make_account,
)


@pytest.fixture
def user(database: Database) -> User:
    # The e-mails of all tests are in one folder.
    return make_account(email=f"{uuid4().hex}@example.com")


@pytest.fixture
def passkey(app: Application) -> SoftwarePasskey:
    return SoftwarePasskey(app.settings.public_url)


def assert_problem(response: ClientResponse, status: int, code: str) -> dict[str, Any]:
    assert (response.status, response.json()["code"]) == (status, code), response.body
    return dict(response.json())


def list_factors(client: Client) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = client("GET", f"{FACTORS}?sort=created_at").json()["data"]
    return data


def list_subjects(app: Application, user: User) -> list[str]:
    """Return the sentences about changes in the e-mails to an account."""
    return [text.split("UTC:\n")[1].split("\n")[0] for text in list_emails_to(app, user.email)]


def test_an_app_is_added_with_its_first_code_and_asked_for_at_the_next_sign_in(
    app: Application, client: Client, anonymous: Client, user: User
) -> None:
    started = client("POST", f"{FACTORS}/totp", {"password": PASSWORD})
    assert (started.status, started.headers["cache-control"]) == (200, "no-store")
    secret = started.json()["secret"]
    assert started.json()["uri"] == (
        f"otpauth://totp/Sartiq:{quote(user.email)}?secret={secret}&issuer=Sartiq"
    )
    assert started.json()["qr_code"].startswith("data:image/svg+xml;")
    # Nothing has changed yet.
    assert list_factors(client) == []
    assert sign_in(anonymous, user.email, PASSWORD).status == 200

    confirmed = client("POST", f"{FACTORS}/totp/confirm", {"otp": get_code(secret)})
    body = confirmed.json()
    assert (confirmed.status, confirmed.headers["cache-control"]) == (201, "no-store")
    codes = body.pop("recovery_codes")
    assert len(set(codes)) == 10
    app_row, codes_row = list_factors(client)
    assert (
        body
        == app_row
        == {
            "id": body["id"],
            "created_at": body["created_at"],
            "updated_at": body["updated_at"],
            "type": "totp",
            "name": None,
            "last_used_at": None,
            "codes_left": None,
        }
    )
    assert (codes_row["type"], codes_row["codes_left"]) == ("recovery_codes", 10)
    read = client("GET", confirmed.headers["location"].removeprefix("/api/v1"))
    assert (read.json(), read.headers["etag"]) == (body, confirmed.headers["etag"])
    assert client("GET", "/users/me").json()["has_second_factor"] is True

    problem = get_challenge(anonymous, user)
    assert problem["methods"] == ["totp", "recovery_code"]
    assert "webauthn" not in problem
    # The code that confirmed the app has been used.
    forget_steps(user)
    response = answer(anonymous, problem["challenge"], otp=get_code(secret))
    assert (response.status, response.headers["cache-control"]) == (200, "no-store")
    assert get_token_owner(anonymous, response.json()["access_token"]).json()["email"] == user.email
    assert list_factors(client)[0]["last_used_at"] is not None
    assert list_subjects(app, user) == ["An authenticator app was added."]


def test_a_code_of_the_step_before_or_after_is_accepted_and_no_other(
    app: Application, anonymous: Client, user: User
) -> None:
    secret = add_totp(app, user)
    for step, status in ((-2, 401), (2, 401), (-1, 200), (1, 200)):
        challenge = get_challenge(anonymous, user)["challenge"]
        assert answer(anonymous, challenge, otp=get_code(secret, step)).status == status, step


def test_a_code_is_accepted_with_spaces_and_a_recovery_code_in_any_writing(
    client: Client, anonymous: Client, user: User
) -> None:
    secret, body = enroll_totp(client)
    forget_steps(user)
    code = get_code(secret)
    first = get_challenge(anonymous, user)["challenge"]
    assert answer(anonymous, first, otp=f"{code[:3]} {code[3:]}").status == 200
    second = get_challenge(anonymous, user)["challenge"]
    written = body["recovery_codes"][0].replace("-", " ").upper()
    assert answer(anonymous, second, otp=written).status == 200
    assert list_factors(client)[1]["codes_left"] == 9


def test_a_passkey_is_added_and_answers_a_challenge(
    app: Application, client: Client, anonymous: Client, user: User, passkey: SoftwarePasskey
) -> None:
    started = client("POST", f"{FACTORS}/passkeys/options", {"password": PASSWORD})
    options = json.loads(started.json()["options"])
    assert options["rp"] == {"name": "Sartiq", "id": "localhost"}
    assert options["user"]["name"] == user.email
    created = add_passkey(client, passkey, "Laptop <in> the studio")
    body = created.json()
    assert (created.status, body["type"], body["name"]) == (201, "passkey", "Laptop <in> the studio")
    assert len(body["recovery_codes"]) == 10

    problem = get_challenge(anonymous, user)
    assert problem["methods"] == ["recovery_code", "webauthn"]
    response = answer(anonymous, problem["challenge"], webauthn=passkey.get(problem["webauthn"]))
    assert response.status == 200, response.body
    # The second factor of another kind gets no second set of codes.
    assert enroll_totp(client)[1]["recovery_codes"] == []
    assert get_challenge(anonymous, user)["methods"] == ["totp", "recovery_code", "webauthn"]
    assert list_subjects(app, user) == [
        'The passkey "Laptop <in> the studio" was added.',
        "An authenticator app was added.",
    ]


def test_registrations_that_cannot_be_verified_are_rejected(
    app: Application, client: Client, user: User, client_for: Callable[..., Client]
) -> None:
    def register(passkey: SoftwarePasskey, options: str) -> ClientResponse:
        return client("POST", f"{FACTORS}/passkeys", {"name": "Phone", "credential": passkey.create(options)})

    def get_options(of: Client) -> str:
        return str(of("POST", f"{FACTORS}/passkeys/options", {"password": PASSWORD}).json()["options"])

    url = app.settings.public_url
    other_client = client_for(make_account())
    options = get_options(client)
    for passkey, answered in (
        (SoftwarePasskey("https://evil.example"), options),
        (SoftwarePasskey(url, rp_id="evil.example"), options),
        (SoftwarePasskey(url), get_options(other_client)),
    ):
        assert_problem(register(passkey, answered), 409, "passkey_rejected")
    assert_problem(
        client("POST", f"{FACTORS}/passkeys", {"name": "Phone", "credential": "{}"}), 409, "passkey_rejected"
    )
    too_long = SoftwarePasskey(url)
    too_long.credential_id = bytes(3_000)
    assert_problem(register(too_long, get_options(client)), 409, "passkey_rejected")
    passkey = SoftwarePasskey(url)
    assert register(passkey, options).status == 201
    assert_problem(register(SoftwarePasskey(url), options), 409, "passkey_rejected")
    assert_problem(register(passkey, get_options(client)), 409, "passkey_rejected")


def test_an_account_has_at_most_ten_passkeys(client: Client, user: User, app: Application) -> None:
    for _ in range(10):
        assert add_passkey(client, SoftwarePasskey(app.settings.public_url)).status == 201
    response = client("POST", f"{FACTORS}/passkeys/options", {"password": PASSWORD})
    assert assert_problem(response, 409, "too_many_passkeys")["limit"] == 10


def test_a_new_app_replaces_the_old_one_when_it_is_confirmed(
    client: Client, anonymous: Client, user: User
) -> None:
    old, _ = enroll_totp(client)
    new, body = enroll_totp(client)
    assert body["recovery_codes"] == []
    assert [factor["type"] for factor in list_factors(client)] == ["recovery_codes", "totp"]
    forget_steps(user)
    challenge = get_challenge(anonymous, user)["challenge"]
    assert_problem(answer(anonymous, challenge, otp=get_code(old)), 401, "incorrect_second_factor")
    assert answer(anonymous, challenge, otp=get_code(new)).status == 200


def test_an_app_that_was_not_started_or_too_long_ago_cannot_be_confirmed(client: Client, user: User) -> None:
    confirm = {"otp": "000000"}
    assert_problem(client("POST", f"{FACTORS}/totp/confirm", confirm), 409, "totp_not_started")
    client("POST", f"{FACTORS}/totp", {"password": PASSWORD})
    assert_problem(client("POST", f"{FACTORS}/totp/confirm", {"otp": "wrong1"}), 409, "incorrect_otp")
    past = utc_now() - timedelta(hours=2)
    factories.get_session().execute(update(SecondFactor).values(created_at=past))
    assert_problem(client("POST", f"{FACTORS}/totp/confirm", confirm), 409, "totp_not_started")


def test_changes_need_the_password_or_a_new_code(app: Application, client: Client, user: User) -> None:
    secret = add_totp(app, user)
    (factor,) = list_factors(client)
    paths = (
        f"{FACTORS}/totp",
        f"{FACTORS}/passkeys/options",
        f"{FACTORS}/recovery-codes",
        f"{FACTORS}/{factor['id']}/remove",
    )
    for path in paths:
        assert_problem(client("POST", path, {"password": "wrong"}), 409, "incorrect_password")
        assert_problem(client("POST", path, {"otp": "000000"}), 409, "incorrect_otp")
        missing = client("POST", path, {})
        assert missing.status == 422, path
        assert missing.json()["detail"][0]["msg"] == "One of these is required: `otp`, `password`"
    for path in paths[:3]:
        forget_steps(user)
        assert client("POST", path, {"otp": get_code(secret)}).status == 200, path
    # Each code works once.
    assert_problem(client("POST", paths[3], {"otp": get_code(secret)}), 409, "incorrect_otp")
    denied = client("GET", "/users/me/audit-events?action=start_totp&outcome=refused").json()["data"]
    assert [each["reason"] for each in denied] == ["incorrect_otp", "incorrect_password"]
    assert client("POST", paths[3], {"password": PASSWORD}).status == 204


def test_recovery_codes_are_replaced_and_go_with_the_last_factor(
    app: Application, client: Client, anonymous: Client, user: User
) -> None:
    proof = {"password": PASSWORD}
    assert_problem(client("POST", f"{FACTORS}/recovery-codes", proof), 409, "no_second_factor")
    _, body = enroll_totp(client)
    replaced = client("POST", f"{FACTORS}/recovery-codes", proof).json()["recovery_codes"]
    assert len(replaced) == 10
    assert not set(replaced) & set(body["recovery_codes"])
    challenge = get_challenge(anonymous, user)["challenge"]
    wrong = answer(anonymous, challenge, otp=body["recovery_codes"][0])
    assert assert_problem(wrong, 401, "incorrect_second_factor")["attempts_left"] == 4
    assert answer(anonymous, challenge, otp=replaced[0]).status == 200

    assert client("POST", f"{FACTORS}/{body['id']}/remove", proof).status == 204
    assert list_factors(client) == []
    assert client("GET", "/users/me").json()["has_second_factor"] is False
    assert sign_in(anonymous, user.email, PASSWORD).status == 200
    assert list_subjects(app, user) == [
        "An authenticator app was added.",
        "New recovery codes were made, and the previous ones stopped working.",
        "A recovery code was used, and 9 are left.",
        "The authenticator app was removed.",
    ]


def test_an_account_whose_codes_are_used_up_gets_new_ones_with_the_next_factor(
    client: Client, user: User
) -> None:
    factories.make(
        SecondFactor(user_id=user.id, type="recovery_codes", code_hashes=[], confirmed_at=utc_now())
    )
    assert len(enroll_totp(client)[1]["recovery_codes"]) == 10
    assert sorted(factor["type"] for factor in list_factors(client)) == ["recovery_codes", "totp"]


def test_factors_of_another_account_are_not_found(
    app: Application, client: Client, user: User, client_for: Callable[..., Client]
) -> None:
    other = make_account()
    add_totp(app, other)
    (factor,) = list_factors(client_for(other))
    for method, path, body in (
        ("GET", f"{FACTORS}/{factor['id']}", None),
        ("POST", f"{FACTORS}/{factor['id']}/remove", {"password": PASSWORD}),
    ):
        assert_problem(client(method, path, body), 404, "not_found")


def test_a_challenge_ends_after_five_minutes_and_is_deleted_with_the_next_one(
    app: Application, anonymous: Client, user: User
) -> None:
    secret = add_totp(app, user)
    challenge = get_challenge(anonymous, user)["challenge"]
    past = utc_now() - timedelta(seconds=1)
    factories.get_session().execute(update(SecondFactorChallenge).values(expires_at=past))
    assert_problem(answer(anonymous, challenge, otp=get_code(secret)), 401, "challenge_ended")
    get_challenge(anonymous, user)
    assert len(factories.get_session().scalars(select(SecondFactorChallenge.id)).all()) == 1


def test_a_form_without_a_pair_that_belongs_together_is_invalid(anonymous: Client, user: User) -> None:
    response = answer(anonymous, "sf_unknown")
    assert response.status == 422
    assert [each["loc"] for each in response.json()["detail"]] == [["body", "otp"]]
    response = anonymous("POST", "/login/access-token", body=b"username=dana%40example.com", headers=FORM)
    assert response.status == 422
    assert [each["msg"] for each in response.json()["detail"]] == [
        "One of these is required: `challenge`, `code`, `password`"
    ]


def test_a_superuser_resets_the_factors_of_an_account_but_not_their_own(
    app: Application, client: Client, anonymous: Client, user: User, superuser: Client
) -> None:
    enroll_totp(client)
    assert superuser("POST", f"/users/{user.id}/second-factors/reset").status == 204
    assert list_factors(client) == []
    assert sign_in(anonymous, user.email, PASSWORD).status == 200
    assert list_subjects(app, user)[-1] == "An operator removed all second factors."
    own_id = superuser("GET", "/users/me").json()["id"]
    assert_problem(superuser("POST", f"/users/{own_id}/second-factors/reset"), 409, "own_account")
    assert_problem(client("POST", f"/users/{user.id}/second-factors/reset"), 403, "not_enough_permissions")
    events = client("GET", "/users/me/audit-events?action=reset_second_factors&outcome=succeeded").json()[
        "data"
    ]
    assert [(each["actor_type"], each["target_type"]) for each in events] == [("operator", "user")]
    assert events[0]["changes"] == [{"field": "has_second_factor", "before": True, "after": False}]


def require_in_the_past(organization: Organization) -> None:
    """Let an organization require a second factor since an hour."""
    since = {"second_factor_from": utc_now() - timedelta(hours=1)}
    factories.get_session().execute(
        update(Organization).where(Organization.id == organization.id).values(since)
    )
    members = Membership.organization_id == organization.id
    factories.get_session().execute(update(Membership).where(members).values(since))


def test_an_organization_requires_a_factor_after_fourteen_days(
    app: Application, client: Client, user: User, client_for: Callable[..., Client]
) -> None:
    organization = factories.make_organization(user)
    member = make_account(email=f"{uuid4().hex}@example.com")
    factories.make_membership(organization, member)
    path = f"/organizations/{organization.id}"
    updated = client("PATCH", path, {"requires_second_factor": True}).json()
    assert updated["requires_second_factor"] is True
    start = updated["second_factor_from"]
    assert start > (utc_now() + timedelta(days=13, hours=23)).isoformat()
    for account in (user, member):
        assert "requires a second factor" in list_emails_to(app, account.email)[0]
    # Again, it starts at the same time; a member who comes later has the same start.
    assert client("PATCH", path, {"requires_second_factor": True}).json()["second_factor_from"] == start
    late = factories.make_user()
    factories.make_membership(factories.make_organization(user), late)
    client("POST", f"{path}/members", {"email": late.email, "role": "viewer"})
    starts = select(Membership.second_factor_from).where(Membership.organization_id == organization.id)
    assert len(set(factories.get_session().scalars(starts).all())) == 1
    assert client_for(member)("GET", f"/brands/?organization_id={organization.id}").status == 200

    ended = client("PATCH", path, {"requires_second_factor": False}).json()
    assert (ended["requires_second_factor"], ended["second_factor_from"]) == (False, None)
    assert set(factories.get_session().scalars(starts).all()) == {None}


@pytest.mark.parametrize("is_superuser", [False, True])
def test_resources_of_an_organization_that_requires_a_factor_say_so(
    app: Application, client_for: Callable[..., Client], is_superuser: bool, database: Database
) -> None:
    owner = make_account()
    organization = factories.make_organization(owner)
    member = make_account(is_superuser=is_superuser)
    factories.make_membership(organization, member, role="admin")
    brand = factories.make_brand(organization=organization)
    own_brand = factories.make_brand(owner=member)
    require_in_the_past(organization)
    client = client_for(member)
    for method, path, body in (
        ("GET", f"/brands/{brand.id}", None),
        ("PATCH", f"/brands/{brand.id}", {"name": "Other"}),
        ("DELETE", f"/brands/{brand.id}", None),
        ("GET", f"/brands/?organization_id={organization.id}", None),
        ("POST", f"/brands/?organization_id={organization.id}", {"name": "Atelier"}),
        ("GET", f"/search/?q=linen&organization_id={organization.id}", None),
        ("GET", f"/organizations/{organization.id}", None),
        ("GET", f"/organizations/{organization.id}/members", None),
        ("GET", f"/organizations/{organization.id}/audit-events", None),
        ("PATCH", f"/organizations/{organization.id}", {"requires_second_factor": False}),
    ):
        problem = assert_problem(client(method, path, body), 403, "second_factor_enrollment_required")
        assert "required_permission" not in problem, path
    # Everything else goes on.
    assert client("GET", f"/brands/{own_brand.id}").status == 200
    assert client("GET", "/users/me").status == 200
    listed = client("GET", "/organizations/").json()["data"]
    assert str(organization.id) in [row["id"] for row in listed]
    unknown = str(own_brand.id)[:-4] + "0000"
    assert_problem(client("GET", f"/brands/{unknown}"), 404, "not_found")
    key = Client(app, api_key_headers(app, organization, {"brands:read"}, created_by=member))
    assert key("GET", f"/brands/{brand.id}").status == 200
    # With a factor, the same session may go on.
    enroll_totp(client)
    assert client("GET", f"/brands/{brand.id}").status == 200
    assert client("GET", "/brands/").status == 200


def test_a_superuser_without_a_factor_cannot_list_the_rows_of_all_tenants(
    client_for: Callable[..., Client], database: Database
) -> None:
    superuser = make_account(is_superuser=True)
    client = client_for(superuser)
    assert client("GET", "/brands/").status == 200
    organization = factories.make_organization(superuser)
    require_in_the_past(organization)
    assert_problem(client("GET", "/brands/"), 403, "second_factor_enrollment_required")
    other = factories.make_organization()
    assert client("GET", f"/brands/?organization_id={other.id}").status == 200


def test_a_member_sees_whether_others_have_a_factor(app: Application, client: Client, user: User) -> None:
    organization = factories.make_organization(user)
    add_totp(app, user)
    (member,) = client("GET", f"/organizations/{organization.id}/members").json()["data"]
    assert member["has_second_factor"] is True


def test_a_copy_of_personal_data_has_the_factors_without_their_secrets(
    app: Application, client: Client, user: User, database: Database
) -> None:
    from studio.account_exports.sections import list_sections

    add_totp(app, user)
    (section,) = [each for each in list_sections(user.id) if each.name == "second_factors"]
    (row,) = factories.get_session().execute(section.query).mappings()
    assert set(row) == {
        "id",
        "user_id",
        "type",
        "name",
        "confirmed_at",
        "last_used_at",
        "created_at",
        "updated_at",
    }
