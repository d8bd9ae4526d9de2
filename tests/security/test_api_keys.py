"""Lifetime and permissions of API keys, and secrecy of their values."""

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
from studio.infrastructure.telemetry.logs import ContextFilter
from studio.rate_limits.limits import QuotaPolicies
from studio.rate_limits.memory_store import MemoryStore
from tests.api.conftest import Client
from tests.support import factories
from tests.support.auth import assert_challenge, revoke
from tests.support.client import ClientResponse, status_and_code
from tests.support.factories.api_keys import api_key_headers, make_api_key
from tests.support.factories.catalog import Customer

SCOPES = ["brands:read", "brands:write", "products:read"]


def assert_rejected(response: ClientResponse) -> None:
    assert status_and_code(response) == (401, "invalid_token"), response.body
    assert_challenge(response)


class KeyClient:
    """A client that authenticates with an API key, which it creates through the API."""

    def __init__(self, app: Application, customer: Customer, client: Client, scopes: list[str]) -> None:
        self.path = f"/organizations/{customer.organization.id}/api-keys"
        response = client("POST", self.path, {"name": "Shop import", "scopes": scopes})
        assert response.status == 201, response.body
        self.secret: str = response.json()["secret"]
        self.id: str = response.json()["id"]
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
def key_client(
    app: Application, customer: Customer, admin: User, client_for: Callable[..., Client]
) -> KeyClient:
    """Return a client with a key that an admin created."""
    return KeyClient(app, customer, client_for(admin), SCOPES)


def test_s16_a_deleted_key_is_rejected_at_the_next_request(key_client: KeyClient, customer: Customer) -> None:
    assert key_client.read().status == 200
    assert customer.client("DELETE", f"{key_client.path}/{key_client.id}").status == 204
    assert_rejected(key_client.read())
    assert_rejected(key_client.write())


def test_s16_the_revocation_endpoint_does_not_revoke_api_keys(key_client: KeyClient) -> None:
    response = revoke(key_client.client, key_client.secret)
    assert (response.status, response.json()) == (200, {"message": "No session takes the token any more"})
    assert key_client.read().status == 200


def test_s16_an_expired_key_is_rejected(app: Application, key_client: KeyClient) -> None:
    assert key_client.read().status == 200
    with app.database.transaction(write=True) as writing:
        ending = update(ApiKey).where(ApiKey.id == UUID(key_client.id))
        writing.execute(ending.values(expires_at=utc_now() - timedelta(seconds=1)))
    assert_rejected(key_client.read())


def test_s16_a_key_never_has_more_permissions_than_its_creator_has_now(
    key_client: KeyClient, customer: Customer, admin: User
) -> None:
    member = f"/organizations/{customer.organization.id}/members/{admin.id}"
    for role, write_status in (("viewer", 403), ("member", 201), ("viewer", 403), ("admin", 201)):
        assert customer.client("PATCH", member, {"role": role}).status == 200
        assert (key_client.read().status, key_client.write().status) == (200, write_status)


def test_s16_removing_a_member_revokes_their_keys_for_good(
    key_client: KeyClient, customer: Customer, admin: User, database: Database
) -> None:
    assert (
        customer.client("DELETE", f"/organizations/{customer.organization.id}/members/{admin.id}").status
        == 204
    )
    assert_rejected(key_client.read())
    factories.make_membership(customer.organization, admin, role="admin")
    assert_rejected(key_client.read())
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(ApiKey.id).where(ApiKey.id == UUID(key_client.id))) is None


def test_s16_a_key_is_rejected_while_its_creator_is_inactive(
    key_client: KeyClient, admin: User, superuser: Client
) -> None:
    for is_active, status in ((False, 401), (True, 200)):
        assert superuser("PATCH", f"/users/{admin.id}", {"is_active": is_active}).status == 200
        assert key_client.read().status == status


def test_s16_after_a_transfer_keys_of_the_old_owner_have_admin_permissions(
    app: Application, customer: Customer, admin: User
) -> None:
    key_client = KeyClient(app, customer, customer.client, SCOPES)
    with app.database.transaction(write=True) as writing:
        for user, role in ((customer.owner, "admin"), (admin, "owner")):
            membership = (
                Membership.organization_id == customer.organization.id,
                Membership.user_id == user.id,
            )
            writing.execute(update(Membership).where(*membership).values(role=role))
    assert key_client.write().status == 201


def test_s01_a_key_cannot_access_personal_resources_of_its_creator(
    key_client: KeyClient, admin: User, client_for: Callable[..., Client]
) -> None:
    client = client_for(admin)
    personal = client("POST", "/brands/", {"name": "Mine"}).json()
    path = f"/brands/{personal['id']}"
    assert client("GET", path).status == 200
    for method, body in (("GET", None), ("PATCH", {"name": "Yours"}), ("DELETE", None)):
        assert key_client.client(method, path, body).status == 404
    assert key_client.client("GET", "/brands/").status == 403
    assert key_client.client("POST", "/brands/", {"name": "Yours"}).status == 403
    assert key_client.client("GET", "/search/?q=mine").status == 403
    listed = [brand["id"] for brand in key_client.read().json()["data"]]
    assert personal["id"] not in listed
    assert client("GET", path).json() == personal


def test_s01_a_key_cannot_access_another_organization_of_its_creator(
    app: Application, key_client: KeyClient, admin: User
) -> None:
    other = factories.make_organization(admin)
    brand = factories.make_brand(organization=other)
    assert key_client.client("GET", f"/brands/{brand.id}").status == 404
    assert key_client.client("GET", f"/brands/?organization_id={other.id}").status == 404
    elsewhere = Client(app, api_key_headers(app, other, ["organizations:read"], admin))
    listed = [row["id"] for row in elsewhere("GET", "/organizations/").json()["data"]]
    assert listed == [str(other.id)]
    assert elsewhere("GET", f"/organizations/{key_client.customer.organization.id}").status == 404


def test_s03_the_key_of_a_superuser_has_no_superuser_permissions(
    app: Application, customer: Customer
) -> None:
    creator = factories.make_user(is_superuser=True)
    factories.make_membership(customer.organization, creator, role="admin")
    client = Client(app, api_key_headers(app, customer.organization, API_KEYS, creator))
    other = factories.make_organization()
    assert client("GET", f"/brands/?organization_id={other.id}").status == 404
    assert client("GET", f"/brands/{factories.make_brand(organization=other).id}").status == 404
    body = {"name": "For all", "slug": "for-all", "public": True}
    assert status_and_code(client("POST", f"/styles/{customer.organization_query}", body)) == (
        409,
        "public_requires_superuser",
    )
    assert status_and_code(client("GET", "/users/")) == (403, "api_key_not_allowed")


def test_s03_a_stored_scope_that_keys_cannot_have_grants_no_access(
    app: Application, customer: Customer
) -> None:
    """Each request checks the stored scopes against the list of permissions that keys can have."""
    headers = api_key_headers(
        app, customer.organization, ["brands:read", "members:write", "organizations:delete"]
    )
    client = Client(app, headers)
    assert client("GET", f"/brands/{customer.organization_query}").status == 200
    response = client("DELETE", f"/organizations/{customer.organization.id}")
    assert status_and_code(response) == (403, "api_key_not_allowed")
    assert "required_scope" not in response.json()


def test_s02_an_upload_of_a_key_cannot_be_used_in_another_organization(
    app: Application, customer: Customer, admin: User
) -> None:
    other, file = factories.make_organization(admin), {"filename": "a.png", "content_type": "image/png"}
    own_client, other_client = (
        Client(app, api_key_headers(app, organization, {"uploads:write", "brands:write"}, admin))
        for organization in (customer.organization, other)
    )
    upload = own_client("POST", "/uploads/presigned-url", file).json()
    body = {"name": "A", "logo_url": upload["file_url"]}
    assert other_client("POST", f"/brands/?organization_id={other.id}", body).status == 404


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
def test_s15_an_altered_or_invented_key_is_rejected_without_a_database_query(
    key_client: KeyClient, monkeypatch: pytest.MonkeyPatch, change: Callable[[str, str], str]
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("the database was queried")

    monkeypatch.setattr("handlers.pipeline.auth.find_active_key", fail)
    forged = generate_secret(UUID(key_client.id), "the secret key of another server")
    altered = change(key_client.secret, forged).encode("utf-8").decode("latin-1")
    response = key_client.client(
        "POST", "/brands/", {"name": 1}, headers={"authorization": f"Bearer {altered}"}
    )
    assert_rejected(response)


def test_s15_a_signed_key_with_the_wrong_random_part_is_rejected(
    app: Application, key_client: KeyClient, customer: Customer
) -> None:
    """The signature is valid and the row exists, but the hash of the key differs."""
    altered = generate_secret(UUID(key_client.id), app.settings.secret_key)
    assert parse_secret(altered, app.settings.secret_keys) == UUID(key_client.id)
    assert_rejected(
        key_client.client(
            "GET", f"/brands/{customer.organization_query}", headers={"authorization": f"Bearer {altered}"}
        )
    )


def test_s15_secrets_are_unique_and_random_in_every_byte(app: Application) -> None:
    key_id = UUID(int=7)
    secrets = [generate_secret(key_id, app.settings.secret_key) for _ in range(200)]
    random = {base64.urlsafe_b64decode(secret.removeprefix("sk_"))[16:48] for secret in secrets}
    assert len(random) == 200
    assert min(len({value[index] for value in random}) for index in range(32)) > 90


def test_s05_the_secret_of_a_key_is_in_no_row_and_no_later_response(
    app: Application, customer: Customer, key_client: KeyClient
) -> None:
    body = {"name": "Once", "scopes": SCOPES}
    response = customer.client("POST", key_client.path, body, headers={"idempotency-key": "once"})
    secrets = [key_client.secret, response.json()["secret"]]
    bodies = [
        customer.client(method, path, content).body
        for method, path, content in (
            ("GET", key_client.path, None),
            ("GET", f"{key_client.path}/{key_client.id}", None),
            ("PATCH", f"{key_client.path}/{key_client.id}", {"name": "Another"}),
        )
    ]
    with app.database.transaction(write=False) as reading:
        rows = [
            str(tuple(row)) for table in Base.metadata.sorted_tables for row in reading.execute(select(table))
        ]
    assert any(key_client.id.replace("-", "") in row.replace("-", "") for row in rows)
    for secret in secrets:
        for part in (secret[3:], secret[30:70]):
            assert not any(part.encode() in content for content in bodies)
            assert not any(part in row for row in rows)


def test_s24_a_request_is_logged_with_the_id_of_its_key_and_never_with_its_secret(
    key_client: KeyClient, admin: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(ContextFilter())
    with caplog.at_level(logging.DEBUG):
        assert key_client.read().status == 200
        altered = {"authorization": f"Bearer {key_client.secret[:-1]}!"}
        assert key_client.client("GET", "/brands/", headers=altered).status == 401
    access_log = [record for record in caplog.records if record.name == "sartiq.access"]
    assert [(record.api_key_id, record.user_id) for record in access_log] == [
        (key_client.id, str(admin.id)),
        (None, None),
    ]
    logged = "".join(f"{vars(record)} {record.getMessage()}" for record in caplog.records)
    assert key_client.secret[3:70] not in logged


def test_s13_a_key_has_its_own_rate_limit(
    app: Application, customer: Customer, key_client: KeyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = app.services.rate_limiter
    monkeypatch.setattr(limits, "store", MemoryStore())
    monkeypatch.setattr(limits, "policies", QuotaPolicies.from_settings(replace(app.settings, limit_key=2)))
    responses = [key_client.read() for _ in range(3)]
    assert [response.status for response in responses] == [200, 200, 429]
    assert responses[2].json()["policy"] == "key"
    assert responses[0].headers["ratelimit-policy"] == '"key";q=2;w=60, "organization";q=1000000;w=60'
    second = KeyClient(app, customer, customer.client, SCOPES)
    assert (second.read().status, key_client.read().status) == (200, 429)


def test_s13_requests_with_invented_keys_are_counted_by_address(
    app: Application, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = app.services.rate_limiter
    monkeypatch.setattr(limits, "store", MemoryStore())
    monkeypatch.setattr(
        limits, "policies", QuotaPolicies.from_settings(replace(app.settings, limit_address=3))
    )
    invented = [Client(app, {"authorization": f"Bearer sk_{number:076d}"}) for number in range(5)]
    statuses = [client("GET", f"/brands/{customer.organization_query}").status for client in invented]
    assert statuses == [401, 401, 401, 429, 429]


def test_s21_a_key_does_not_replay_responses_of_its_creator_or_of_another_key(
    app: Application,
    customer: Customer,
    key_client: KeyClient,
    client_for: Callable[..., Client],
    admin: User,
) -> None:
    second = KeyClient(app, customer, client_for(admin), SCOPES)
    responses = [
        client(
            "POST",
            f"/brands/{customer.organization_query}",
            {"name": "One"},
            headers={"idempotency-key": "the same"},
        )
        for client in (client_for(admin), key_client.client, second.client, key_client.client)
    ]
    assert [response.status for response in responses] == [201] * 4
    assert ["idempotency-replayed" in response.headers for response in responses] == [
        False,
        False,
        False,
        True,
    ]
    assert len({response.json()["id"] for response in responses}) == 3


def test_s21_a_key_that_lost_its_scope_does_not_replay_its_own_response(
    app: Application, customer: Customer, key_client: KeyClient
) -> None:
    headers = {"idempotency-key": "the same"}
    path = f"/brands/{customer.organization_query}"
    assert key_client.client("POST", path, {"name": "One"}, headers=headers).status == 201
    with app.database.transaction(write=True) as writing:
        writing.execute(update(ApiKey).where(ApiKey.id == UUID(key_client.id)).values(scopes=["brands:read"]))
    assert key_client.client("POST", path, {"name": "One"}, headers=headers).status == 403


def test_s25_responses_with_key_secrets_are_not_cached(customer: Customer, key_client: KeyClient) -> None:
    body = {"name": "Once", "scopes": SCOPES}
    response = customer.client("POST", key_client.path, body, headers={"idempotency-key": "once"})
    again = customer.client("POST", key_client.path, body, headers={"idempotency-key": "once"})
    assert (response.headers["cache-control"], again.headers["cache-control"]) == ("no-store", "no-store")


def test_s01_keys_of_other_organizations_return_404(customer: Customer) -> None:
    foreign = make_api_key(factories.make_organization())
    path = f"/organizations/{customer.organization.id}/api-keys"
    for method, body in (("GET", None), ("PATCH", {"name": "Mine"}), ("DELETE", None)):
        assert customer.client(method, f"{path}/{foreign.id}", body).status == 404
        other_path = f"/organizations/{foreign.organization_id}/api-keys/{foreign.id}"
        assert customer.client(method, other_path, body).status == 404
