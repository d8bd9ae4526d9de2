"""API keys: they hold as long as they should, reach no further than they should, and are told nowhere."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from db.base import Base, utc_now
from db.models import ApiKey, Membership, User
from db.session import Database
from handlers.app import Application
from handlers.common.permissions import API_KEYS
from studio.accounts.api_keys import generate_secret, parse_secret
from studio.rate_limits.limits import QuotaPolicies
from studio.rate_limits.memory_store import MemoryStore
from studio.telemetry.logs import ContextFilter
from tests.api.conftest import Client
from tests.support import factories
from tests.support.auth import revoke
from tests.support.client import ClientResponse
from tests.support.factories.api_keys import api_key_headers, make_api_key
from tests.support.factories.catalogue import Customer, status_and_code

SCOPES = ["brands:read", "brands:write", "products:read"]


def assert_rejected(reply: ClientResponse) -> None:
    assert status_and_code(reply) == (401, "invalid_token"), reply.body
    assert reply.headers["www-authenticate"] == "Bearer"


class KeyClient:
    """A program with a key that was made through the API."""

    def __init__(self, app: Application, customer: Customer, client: Client, scopes: list[str]) -> None:
        self.path = f"/organizations/{customer.organization.id}/api-keys"
        reply = client("POST", self.path, {"name": "Shop import", "scopes": scopes})
        assert reply.status == 201, reply.body
        self.secret: str = reply.json()["secret"]
        self.id: str = reply.json()["id"]
        self.client = Client(app, {"authorization": f"Bearer {self.secret}"})
        self.customer = customer

    def read(self) -> ClientResponse:
        return self.client("GET", f"/brands/{self.customer.organization_query}")

    def write(self) -> ClientResponse:
        return self.client("POST", f"/brands/{self.customer.organization_query}", {"name": "Atelier Sud"})


@pytest.fixture
def admin(customer: Customer) -> User:
    admin = factories.make_user()
    factories.make_membership(customer.organization, admin, role="admin")
    return admin


@pytest.fixture
def program(
    app: Application, customer: Customer, admin: User, client_for: Callable[..., Client]
) -> KeyClient:
    """The key of an admin."""
    return KeyClient(app, customer, client_for(admin), SCOPES)


def test_s16_a_deleted_key_is_refused_with_the_next_request(program: KeyClient, customer: Customer) -> None:
    assert program.read().status == 200
    assert customer.client("DELETE", f"{program.path}/{program.id}").status == 204
    assert_rejected(program.read())
    assert_rejected(program.write())


def test_s16_a_key_is_no_token_of_a_session_and_outlives_its_revocation(program: KeyClient) -> None:
    reply = revoke(program.client, program.secret)
    assert (reply.status, reply.json()) == (200, {"message": "No session takes the token any more"})
    assert program.read().status == 200


def test_s16_an_expired_key_is_refused(app: Application, program: KeyClient) -> None:
    assert program.read().status == 200
    with app.database.transaction(write=True) as writing:
        ending = update(ApiKey).where(ApiKey.id == UUID(program.id))
        writing.execute(ending.values(expires_at=utc_now() - timedelta(seconds=1)))
    assert_rejected(program.read())


def test_s16_a_key_may_no_more_than_its_maker_now(
    program: KeyClient, customer: Customer, admin: User
) -> None:
    member = f"/organizations/{customer.organization.id}/members/{admin.id}"
    for role, may_write in (("viewer", 403), ("member", 201), ("viewer", 403), ("admin", 201)):
        assert customer.client("PATCH", member, {"role": role}).status == 200
        assert (program.read().status, program.write().status) == (200, may_write)


def test_s16_removing_a_member_revokes_their_keys_for_good(
    program: KeyClient, customer: Customer, admin: User, database: Database
) -> None:
    assert (
        customer.client("DELETE", f"/organizations/{customer.organization.id}/members/{admin.id}").status
        == 204
    )
    assert_rejected(program.read())
    factories.make_membership(customer.organization, admin, role="admin")
    assert_rejected(program.read())
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(ApiKey.id).where(ApiKey.id == UUID(program.id))) is None


def test_s16_a_key_rests_while_its_maker_is_locked(
    program: KeyClient, admin: User, superuser: Client
) -> None:
    for is_active, status in ((False, 401), (True, 200)):
        assert superuser("PATCH", f"/users/{admin.id}", {"is_active": is_active}).status == 200
        assert program.read().status == status


def test_s16_after_a_transfer_keys_of_the_old_owner_have_admin_permissions(
    app: Application, customer: Customer, admin: User
) -> None:
    program = KeyClient(app, customer, customer.client, SCOPES)
    with app.database.transaction(write=True) as writing:
        for user, role in ((customer.owner, "admin"), (admin, "owner")):
            here = (Membership.organization_id == customer.organization.id, Membership.user_id == user.id)
            writing.execute(update(Membership).where(*here).values(role=role))
    assert program.write().status == 201


def test_s01_a_key_sees_nothing_personal_of_its_maker(
    program: KeyClient, customer: Customer, admin: User, client_for: Callable[..., Client]
) -> None:
    client = client_for(admin)
    personal = client("POST", "/brands/", {"name": "Mine"}).json()
    path = f"/brands/{personal['id']}"
    assert client("GET", path).status == 200
    for method, body in (("GET", None), ("PATCH", {"name": "Yours"}), ("DELETE", None)):
        assert program.client(method, path, body).status == 404
    assert program.client("GET", "/brands/").status == 403
    assert program.client("POST", "/brands/", {"name": "Yours"}).status == 403
    assert program.client("GET", "/search/?q=mine").status == 403
    seen = [brand["id"] for brand in program.read().json()["data"]]
    assert personal["id"] not in seen
    assert client("GET", path).json() == personal


def test_s01_a_key_of_one_organization_is_a_stranger_in_its_makers_other_one(
    app: Application, program: KeyClient, admin: User
) -> None:
    other = factories.make_organization(admin)
    brand = factories.make_brand(organization=other)
    assert program.client("GET", f"/brands/{brand.id}").status == 404
    assert program.client("GET", f"/brands/?organization_id={other.id}").status == 404
    elsewhere = Client(app, api_key_headers(app, other, ["organizations:read"], admin))
    shown = [one["id"] for one in elsewhere("GET", "/organizations/").json()["data"]]
    assert shown == [str(other.id)]
    assert elsewhere("GET", f"/organizations/{program.customer.organization.id}").status == 404


def test_s03_the_key_of_a_superuser_is_no_superuser(app: Application, customer: Customer) -> None:
    boss = factories.make_user(is_superuser=True)
    factories.make_membership(customer.organization, boss, role="admin")
    client = Client(app, api_key_headers(app, customer.organization, API_KEYS, boss))
    stranger = factories.make_organization()
    assert client("GET", f"/brands/?organization_id={stranger.id}").status == 404
    assert client("GET", f"/brands/{factories.make_brand(organization=stranger).id}").status == 404
    body = {"name": "For all", "slug": "for-all", "public": True}
    assert status_and_code(client("POST", f"/styles/{customer.organization_query}", body)) == (
        409,
        "public_requires_superuser",
    )
    assert_rejected(client("GET", "/users/"))


def test_s03_a_scope_that_no_key_can_have_opens_nothing(app: Application, customer: Customer) -> None:
    """Whatever is in the row: what keys can be allowed is decided at every request."""
    headers = api_key_headers(
        app, customer.organization, ["brands:read", "members:write", "organizations:delete"]
    )
    client = Client(app, headers)
    assert client("GET", f"/brands/{customer.organization_query}").status == 200
    assert_rejected(client("DELETE", f"/organizations/{customer.organization.id}"))


def test_s02_an_upload_of_a_key_is_of_no_use_elsewhere(
    app: Application, customer: Customer, admin: User
) -> None:
    other, file = factories.make_organization(admin), {"filename": "a.png", "content_type": "image/png"}
    ours, theirs = (
        Client(app, api_key_headers(app, one, {"uploads:write", "brands:write"}, admin))
        for one in (customer.organization, other)
    )
    announced = ours("POST", "/uploads/presigned-url", file).json()
    body = {"name": "A", "logo_url": announced["file_url"]}
    assert theirs("POST", f"/brands/?organization_id={other.id}", body).status == 404


@pytest.mark.parametrize(
    "change",
    [
        lambda secret, forged: secret[:-1] + ("A" if secret[-1] != "A" else "B"),
        lambda secret, forged: secret[:3] + ("A" if secret[3] != "A" else "B") + secret[4:],
        lambda secret, forged: secret[:-1],
        lambda secret, forged: secret + "A",
        lambda secret, forged: secret.removeprefix("sk_"),
        lambda secret, forged: secret.upper(),
        lambda secret, forged: "sk_" + "A" * 76,
        lambda secret, forged: "sk_" + "é" * 76,
        lambda secret, forged: forged,
    ],
)
def test_s15_a_key_that_was_altered_or_made_up_is_refused_before_the_database_is_asked(
    program: KeyClient, monkeypatch: pytest.MonkeyPatch, change: Callable[[str, str], str]
) -> None:
    def ask_the_database(*_: Any) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr("handlers.pipeline.auth.find_active_key", ask_the_database)
    forged = generate_secret(UUID(program.id), "a secret of another server, of which nobody here knows")
    wrong = change(program.secret, forged).encode("utf-8").decode("latin-1")
    reply = program.client("POST", "/brands/", {"name": 1}, headers={"authorization": f"Bearer {wrong}"})
    assert_rejected(reply)


def test_s15_a_key_that_this_server_made_for_another_row_is_refused(
    app: Application, program: KeyClient, customer: Customer
) -> None:
    """The mark is good, the row is there, and the random part is another one."""
    wrong = generate_secret(UUID(program.id), app.settings.secret_key)
    assert parse_secret(wrong, app.settings.secret_key) == UUID(program.id)
    assert_rejected(
        program.client(
            "GET", f"/brands/{customer.organization_query}", headers={"authorization": f"Bearer {wrong}"}
        )
    )


def test_s15_secrets_share_nothing_that_could_be_guessed(app: Application) -> None:
    key_id = UUID(int=7)
    made = [generate_secret(key_id, app.settings.secret_key) for _ in range(200)]
    random = {base64.urlsafe_b64decode(one.removeprefix("sk_"))[16:48] for one in made}
    assert len(random) == 200
    assert min(len({one[place] for one in random}) for place in range(32)) > 90


def test_s05_the_secret_of_a_key_is_in_no_row_and_no_later_answer(
    app: Application, customer: Customer, program: KeyClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"name": "Once", "scopes": SCOPES}
    reply = customer.client("POST", program.path, body, headers={"idempotency-key": "once"})
    secrets = [program.secret, reply.json()["secret"]]
    answers = [
        customer.client(method, path, sent).body
        for method, path, sent in (
            ("GET", program.path, None),
            ("GET", f"{program.path}/{program.id}", None),
            ("PATCH", f"{program.path}/{program.id}", {"name": "Another"}),
        )
    ]
    with app.database.transaction(write=False) as reading:
        rows = [
            str(tuple(row)) for table in Base.metadata.sorted_tables for row in reading.execute(select(table))
        ]
    assert any(program.id.replace("-", "") in row.replace("-", "") for row in rows)
    for secret in secrets:
        for part in (secret[3:], secret[30:70]):
            assert not any(part.encode() in answer for answer in answers)
            assert not any(part in row for row in rows)


def test_s24_a_request_is_logged_with_the_id_of_its_key_and_never_with_its_secret(
    program: KeyClient, admin: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(ContextFilter())
    with caplog.at_level(logging.DEBUG):
        assert program.read().status == 200
        altered = {"authorization": f"Bearer {program.secret[:-1]}!"}
        assert program.client("GET", "/brands/", headers=altered).status == 401
    lines = [record for record in caplog.records if record.name == "sartiq.access"]
    assert [(one.api_key_id, one.user_id) for one in lines] == [(program.id, str(admin.id)), (None, None)]
    told = "".join(f"{vars(record)} {record.getMessage()}" for record in caplog.records)
    assert program.secret[3:70] not in told


def test_s13_a_key_asks_so_often_and_its_maker_is_not_counted(
    app: Application, customer: Customer, program: KeyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = app.app.config["LIMITS"]
    monkeypatch.setattr(limits, "store", MemoryStore())
    monkeypatch.setattr(limits, "policies", QuotaPolicies.from_settings(replace(app.settings, limit_key=2)))
    told = [program.read() for _ in range(3)]
    assert [reply.status for reply in told] == [200, 200, 429]
    assert told[2].json()["policy"] == "key"
    assert told[0].headers["ratelimit-policy"] == '"key";q=2;w=60, "organization";q=1000000;w=60'
    second = KeyClient(app, customer, customer.client, SCOPES)
    assert (second.read().status, program.read().status) == (200, 429)


def test_s13_invented_keys_are_counted_for_the_address(
    app: Application, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = app.app.config["LIMITS"]
    monkeypatch.setattr(limits, "store", MemoryStore())
    monkeypatch.setattr(
        limits, "policies", QuotaPolicies.from_settings(replace(app.settings, limit_address=3))
    )
    invented = [Client(app, {"authorization": f"Bearer sk_{number:076d}"}) for number in range(5)]
    statuses = [client("GET", f"/brands/{customer.organization_query}").status for client in invented]
    assert statuses == [401, 401, 401, 429, 429]


def test_s21_a_key_does_not_replay_responses_of_its_creator_or_of_another_key(
    app: Application, customer: Customer, program: KeyClient, client_for: Callable[..., Client], admin: User
) -> None:
    second = KeyClient(app, customer, client_for(admin), SCOPES)
    made = [
        client(
            "POST",
            f"/brands/{customer.organization_query}",
            {"name": "One"},
            headers={"idempotency-key": "the same"},
        )
        for client in (client_for(admin), program.client, second.client, program.client)
    ]
    assert [reply.status for reply in made] == [201] * 4
    assert ["idempotency-replayed" in reply.headers for reply in made] == [False, False, False, True]
    assert len({reply.json()["id"] for reply in made}) == 3


def test_s21_a_key_that_lost_its_scope_does_not_replay_its_own_response(
    app: Application, customer: Customer, program: KeyClient
) -> None:
    sent = {"idempotency-key": "the same"}
    path = f"/brands/{customer.organization_query}"
    assert program.client("POST", path, {"name": "One"}, headers=sent).status == 201
    with app.database.transaction(write=True) as writing:
        writing.execute(update(ApiKey).where(ApiKey.id == UUID(program.id)).values(scopes=["brands:read"]))
    assert program.client("POST", path, {"name": "One"}, headers=sent).status == 403


def test_s25_responses_with_key_secrets_are_not_cached(customer: Customer, program: KeyClient) -> None:
    body = {"name": "Once", "scopes": SCOPES}
    reply = customer.client("POST", program.path, body, headers={"idempotency-key": "once"})
    again = customer.client("POST", program.path, body, headers={"idempotency-key": "once"})
    assert (reply.headers["cache-control"], again.headers["cache-control"]) == ("no-store", "no-store")


def test_s01_keys_of_other_organizations_look_like_none(customer: Customer, admin: User) -> None:
    foreign = make_api_key(factories.make_organization())
    path = f"/organizations/{customer.organization.id}/api-keys"
    for method, body in (("GET", None), ("PATCH", {"name": "Mine"}), ("DELETE", None)):
        assert customer.client(method, f"{path}/{foreign.id}", body).status == 404
        theirs = f"/organizations/{foreign.organization_id}/api-keys/{foreign.id}"
        assert customer.client(method, theirs, body).status == 404
