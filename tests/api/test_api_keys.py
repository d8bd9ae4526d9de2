"""API keys through the API: created with a secret that is shown once, listed, renamed and deleted."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select

from db.base import utc_now
from db.models import ApiKey
from db.session import Database
from handlers.app import Application
from studio.accounts.api_keys import MAX_KEYS
from tests.api.conftest import Client, CommittingServer
from tests.contract.tenant import make_image
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.factories.api_keys import make_api_key
from tests.support.factories.catalog import Customer

BODY = {"name": "Shop import", "scopes": ["products:write", "products:read"], "expires_in_days": 90}


def api_keys_path(organization: Any) -> str:
    return f"/organizations/{organization.id}/api-keys"


def client_with_key(app: Application, new_key: dict[str, Any]) -> Client:
    return Client(app, {"authorization": f"Bearer {new_key['secret']}"})


@pytest.fixture
def new_key(customer: Customer) -> dict[str, Any]:
    response = customer.client("POST", api_keys_path(customer.organization), BODY)
    assert response.status == 201, response.body
    return dict(response.json())


def test_the_secret_of_a_key_is_returned_only_when_it_is_created(
    customer: Customer,
) -> None:
    path, repeated = api_keys_path(customer.organization), {"idempotency-key": "one"}
    response = customer.client("POST", path, BODY, headers=repeated)
    created = response.json()
    assert (response.status, response.headers["cache-control"]) == (201, "no-store")
    secret = created.pop("secret")
    assert re.fullmatch(r"sk_[A-Za-z0-9_-]{76}", secret)
    assert created == {
        "id": created["id"],
        "created_at": created["created_at"],
        "updated_at": created["updated_at"],
        "organization_id": str(customer.organization.id),
        "created_by_id": str(customer.owner.id),
        "name": "Shop import",
        "scopes": ["products:read", "products:write"],
        "last_four": secret[-4:],
        "expires_at": created["expires_at"],
        "last_used_at": None,
    }
    lifetime = datetime.fromisoformat(created["expires_at"]) - datetime.fromisoformat(created["created_at"])
    assert abs(lifetime - timedelta(days=90)) < timedelta(seconds=5)
    assert customer.client("GET", response.headers["location"].removeprefix("/api/v1")).json() == created
    assert customer.client("GET", path).json()["data"] == [created]
    again = customer.client("POST", path, BODY, headers=repeated)
    assert (again.headers["idempotency-replayed"], again.json()["secret"]) == ("true", secret)
    renamed = customer.client("PATCH", f"{path}/{created['id']}", {"name": "Second shop"}).json()
    assert renamed == {**created, "name": "Second shop", "updated_at": renamed["updated_at"]}


def test_a_key_expires_after_a_year_by_default(customer: Customer) -> None:
    body = {"name": "Shop import", "scopes": ["brands:read"]}
    created = customer.client("POST", api_keys_path(customer.organization), body).json()
    lifetime = datetime.fromisoformat(created["expires_at"]) - datetime.fromisoformat(created["created_at"])
    assert abs(lifetime - timedelta(days=365)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("invalid", "location"),
    [
        ({"scopes": []}, ("body", "scopes")),
        ({"scopes": ["brands:read", "brands:read"]}, ("body", "scopes")),
        ({"scopes": ["members:write"]}, ("body", "scopes", 0)),
        ({"scopes": ["everything"]}, ("body", "scopes", 0)),
        ({"expires_in_days": 366}, ("body", "expires_in_days")),
        ({"expires_in_days": 0}, ("body", "expires_in_days")),
        ({"secret": "mine"}, ("body", "secret")),
    ],
)
def test_invalid_keys_are_rejected(
    customer: Customer, invalid: dict[str, Any], location: tuple[Any, ...]
) -> None:
    response = customer.client("POST", api_keys_path(customer.organization), {**BODY, **invalid})
    assert (response.status, list(response.error_types)) == (422, [location])


def test_an_admin_can_delete_a_key_of_the_owner(
    customer: Customer, client_for: Callable[..., Client], new_key: dict[str, Any]
) -> None:
    admin = factories.make_user()
    factories.make_membership(customer.organization, admin, role="admin")
    assert (
        client_for(admin)("DELETE", f"{api_keys_path(customer.organization)}/{new_key['id']}").status == 204
    )


def test_a_caller_without_a_role_cannot_create_a_key(customer: Customer, superuser: Client) -> None:
    """A superuser may call the operation, but has no role in the organization that the key could use."""
    response = superuser("POST", api_keys_path(customer.organization), BODY)
    assert status_and_code(response) == (409, "scopes_not_granted")
    assert response.json()["detail"].endswith("products:read, products:write")
    assert superuser("GET", api_keys_path(customer.organization)).json()["count"] == 0


def test_rows_created_with_a_key_belong_to_the_account_that_created_the_key(
    app: Application, customer: Customer, new_key: dict[str, Any]
) -> None:
    key_client = client_with_key(app, new_key)
    product = key_client("POST", f"/products/{customer.organization_query}", {"name": "Linen dress"})
    assert product.status == 201, product.body
    assert product.json()["owner_id"] == str(customer.owner.id)
    assert product.json()["organization_id"] == str(customer.organization.id)


def test_the_last_use_is_stored_at_most_once_a_minute_and_does_not_change_updated_at(
    app: Application, customer: Customer, new_key: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    key_client, path = (
        client_with_key(app, new_key),
        f"{api_keys_path(customer.organization)}/{new_key['id']}",
    )

    def use() -> dict[str, Any]:
        assert key_client("GET", f"/products/{customer.organization_query}").status == 200
        return dict(customer.client("GET", path).json())

    first, noon = use(), utc_now()
    assert abs(datetime.fromisoformat(first["last_used_at"]) - noon) < timedelta(seconds=5)
    assert first["updated_at"] == new_key["updated_at"]
    assert use()["last_used_at"] == first["last_used_at"]
    monkeypatch.setattr("db.queries.api_keys.utc_now", lambda: noon + timedelta(seconds=61))
    assert use()["last_used_at"] > first["last_used_at"]


def test_a_key_describes_itself(app: Application, customer: Customer, new_key: dict[str, Any]) -> None:
    key_client, path = client_with_key(app, new_key), "/api-keys/current"
    key_client("GET", path)
    response = key_client("GET", path)
    shown = {name: value for name, value in new_key.items() if name not in ("secret", "last_used_at")}
    assert (response.status, response.json()) == (
        200,
        {**shown, "last_used_at": response.json()["last_used_at"]},
    )
    assert key_client("GET", path, headers={"if-none-match": response.headers["etag"]}).status == 304
    of_session = customer.client("GET", path)
    assert status_and_code(of_session) == (404, "not_found")
    assert of_session.json()["detail"] == "A session has no API key: send an API key to see what it is"
    assert customer.client("DELETE", f"{api_keys_path(customer.organization)}/{new_key['id']}").status == 204
    assert status_and_code(key_client("GET", path)) == (401, "invalid_token")


def test_a_rejected_request_counts_as_use_of_the_key(
    app: Application, customer: Customer, new_key: dict[str, Any]
) -> None:
    assert client_with_key(app, new_key)("GET", f"/brands/{customer.organization_query}").status == 403
    assert customer.client("GET", f"{api_keys_path(customer.organization)}/{new_key['id']}").json()[
        "last_used_at"
    ]


def test_an_organization_has_at_most_fifty_keys(customer: Customer) -> None:
    for _ in range(MAX_KEYS - 1):
        make_api_key(customer.organization, expires_at=utc_now() - timedelta(days=1))
    assert customer.client("POST", api_keys_path(customer.organization), BODY).status == 201
    response = customer.client("POST", api_keys_path(customer.organization), BODY)
    assert status_and_code(response) == (409, "too_many_api_keys")


def test_keys_of_other_organizations_do_not_count_toward_the_limit(customer: Customer) -> None:
    other = factories.make_organization(customer.owner)
    for _ in range(MAX_KEYS):
        make_api_key(other, customer.owner)
    assert customer.client("POST", api_keys_path(customer.organization), BODY).status == 201


def test_parallel_requests_cannot_exceed_the_maximum_number_of_keys(
    committing_server: CommittingServer,
) -> None:
    client, database, scenario = committing_server
    path = api_keys_path(scenario.organization)
    with database.transaction(write=True) as writing, factories.use_session(writing):
        for _ in range(MAX_KEYS - 1):
            make_api_key(scenario.organization, scenario.owner)

    responses = run_concurrently(*[partial(client, "POST", path, BODY)] * 4)
    assert sorted(response.status for response in responses) == [201, 409, 409, 409]
    assert client("GET", path).json()["count"] == MAX_KEYS


def test_one_of_two_parallel_deletions_of_a_key_succeeds(committing_server: CommittingServer) -> None:
    client, database, scenario = committing_server
    created = client("POST", api_keys_path(scenario.organization), BODY).json()
    responses = run_concurrently(
        *[partial(client, "DELETE", f"{api_keys_path(scenario.organization)}/{created['id']}")] * 2
    )
    assert sorted(response.status for response in responses) == [204, 404]
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(ApiKey.id))) == 0


def test_concurrent_requests_with_one_key_all_succeed(
    committing_server: CommittingServer, application: Application
) -> None:
    client, _, scenario = committing_server
    created = client("POST", api_keys_path(scenario.organization), BODY).json()
    key_client = client_with_key(application, created)
    path = f"/products/?organization_id={scenario.organization.id}"
    writes = [partial(key_client, "POST", path, {"name": f"Dress {number}"}) for number in range(3)]
    responses = run_concurrently(*writes, *[partial(key_client, "GET", path)] * 3)
    assert [response.status for response in responses] == [201] * 3 + [200] * 3
    assert client("GET", f"{api_keys_path(scenario.organization)}/{created['id']}").json()["last_used_at"]


def test_a_search_with_a_key_returns_only_what_its_scopes_can_read(
    app: Application, customer: Customer
) -> None:
    factories.make_product(organization=customer.organization, name="Linen dress")
    factories.make_shooting(organization=customer.organization, name="Linen summer")
    body = {"name": "Search", "scopes": ["search:read", "products:read"]}
    key_client = client_with_key(
        app, customer.client("POST", api_keys_path(customer.organization), body).json()
    )
    results = key_client("GET", f"/search/{customer.organization_query}&q=linen").json()["results"]
    assert [result["resource_type"] for result in results] == ["product"]
    all_results = customer.client("GET", f"/search/{customer.organization_query}&q=linen").json()["results"]
    assert {result["resource_type"] for result in all_results} == {"product", "shooting"}


def test_an_upload_with_a_key_belongs_to_its_organization(
    app: Application, customer: Customer, database: Database, client_for: Callable[..., Client]
) -> None:
    scopes = ["uploads:write", "brands:write", "brands:read", "files:read"]
    body = {"name": "Logos", "scopes": scopes}
    key_client = client_with_key(
        app, customer.client("POST", api_keys_path(customer.organization), body).json()
    )
    upload = key_client(
        "POST", "/uploads/presigned-url", {"filename": "a.png", "content_type": "image/png"}
    ).json()

    sent = client_for(None)(
        "PUT",
        upload["upload_url"].partition("/api/v1")[2],
        body=make_image(),
        headers={"content-type": "image/png"},
    )
    assert sent.status == 204, sent.body
    brand = key_client(
        "POST", f"/brands/{customer.organization_query}", {"name": "A", "logo_url": upload["file_url"]}
    )
    assert brand.status == 201, brand.body
    shown = key_client("GET", brand.json()["logo_url"].partition("/api/v1")[2])
    assert (shown.status, shown.headers["content-type"]) == (200, "image/png")
