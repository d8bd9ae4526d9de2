"""Requests are limited per account, organization and IP address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import uvicorn

from handlers.app import Application
from handlers.pipeline.admission.limits import Limit
from handlers.server.cli import uvicorn_options
from studio.rate_limits.memory_store import MemoryStore
from tests.api.conftest import Client
from tests.security.rate_limits import exceeded_policy
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import send_request
from tests.support.factories.catalog import Customer
from tests.support.rejections import Rejections


def test_s13_an_account_is_limited_and_gets_the_rate_limit_headers(
    set_limits: Callable[..., Any], client_for: Callable[..., Client], rejections: Rejections
) -> None:
    clock, client = set_limits(limit_account=2), client_for(factories.make_user())
    outcomes = [client("GET", "/users/me") for _ in range(3)]
    assert [response.status for response in outcomes] == [200, 200, 429]
    assert [response.headers["ratelimit"] for response in outcomes] == [
        '"account";r=1;t=30', '"account";r=0;t=30', '"account";r=0;t=30',
    ]  # fmt: skip
    assert {response.headers["ratelimit-policy"] for response in outcomes} == {'"account";q=2;w=60'}
    assert outcomes[2].json() == {
        "type": "http://localhost:8000/api/v1/problems/rate_limited",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Too many requests; try again in 30 seconds",
        "code": "rate_limited",
        "policy": "account",
        "request_id": outcomes[2].headers["x-request-id"],
    }
    assert outcomes[2].headers["retry-after"] == "30"
    assert rejections.take() == {(429, "rate_limited", Limit.ACCOUNT)}
    other = client_for(factories.make_user())
    assert other("GET", "/users/me").status == 200
    clock.now += 30_000
    assert client("GET", "/users/me").status == 200


def test_s13_only_the_members_of_an_organization_share_its_limit(
    set_limits: Callable[..., Any], customer: Customer, client_for: Callable[..., Client]
) -> None:
    clock = set_limits(limit_organization=2)
    member, other_client = factories.make_user(), client_for(factories.make_user())
    factories.make_membership(customer.organization, member)
    brand = factories.make_brand(organization=customer.organization)
    for _ in range(4):
        assert other_client("GET", f"/brands/{customer.organization_query}").status == 404
        assert other_client("GET", f"/brands/{brand.id}").status == 404
        assert customer.client("GET", "/brands/").status == 200
    by_query = customer.client("GET", f"/brands/{customer.organization_query}")
    assert by_query.headers["ratelimit"].partition(", ")[2] == '"organization";r=1;t=30'
    by_id = client_for(member)("GET", f"/brands/{brand.id}")
    assert by_id.headers["ratelimit"].partition(", ")[2] == '"organization";r=0;t=30'
    change = customer.client("PATCH", f"/brands/{brand.id}", as_json={"name": "Changed"})
    assert exceeded_policy(change) == "organization"
    assert (
        exceeded_policy(client_for(member)("GET", f"/brands/{customer.organization_query}")) == "organization"
    )
    assert other_client("GET", f"/brands/{brand.id}").status == 404
    # The row tells which organization it is, so the change was made and rolled back.
    clock.now += 60_000
    assert customer.client("GET", f"/brands/{brand.id}").json()["name"] != "Changed"


def test_s13_a_denied_request_of_a_member_counts_for_the_organization(
    set_limits: Callable[..., Any], customer: Customer, client_for: Callable[..., Client]
) -> None:
    set_limits(limit_organization=1)
    viewer = factories.make_user()
    factories.make_membership(customer.organization, viewer, role="viewer")
    brand, client = factories.make_brand(organization=customer.organization), client_for(viewer)
    assert client("PATCH", f"/brands/{brand.id}", {"name": "Changed"}).status == 403
    assert exceeded_policy(client("PATCH", f"/brands/{brand.id}", {"name": "Changed"})) == "organization"


def test_s13_requests_without_a_valid_credential_are_counted_by_address(
    set_limits: Callable[..., Any], app: Application, client_for: Callable[..., Client]
) -> None:
    set_limits(limit_address=3)
    anonymous, signed_out = client_for(None), factories.make_user()
    revoked = auth_headers(app, signed_out)
    assert Client(app, revoked)("POST", "/logout").status == 204
    assert anonymous("GET", "/generation-models/").status == 200
    assert anonymous("GET", "/users/me", headers={"authorization": "Bearer nonsense"}).status == 401
    assert anonymous("GET", "/users/me", headers=revoked).status == 401
    for headers in ({}, {"authorization": "Bearer nonsense"}, revoked):
        assert exceeded_policy(anonymous("GET", "/users/me", headers=headers)) == "address"
    assert exceeded_policy(anonymous("GET", "/generation-models/")) == "address"
    assert client_for(factories.make_user())("GET", "/users/me").status == 200
    assert anonymous("GET", "/utils/readiness").status == 200
    assert anonymous("GET", "/nothing").status == 404


def test_s13_the_body_of_a_rejected_request_is_not_read(
    set_limits: Callable[..., Any], client_for: Callable[..., Client]
) -> None:
    set_limits(limit_account=1)
    client = client_for(factories.make_user())
    client("GET", "/users/me")

    # Without the limit these bodies would return 415, 413 and 400.
    for headers in ({}, {"content-length": "99999999999"}, {"content-type": "application/json"}):
        assert exceeded_policy(client("POST", "/brands/", body=b"{", headers=headers)) == "account"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "counted"),
    [
        ((), "192.0.2.9", "127.0.0.1"),
        (("10.0.0.0/8",), "192.0.2.9", "127.0.0.1"),
        (("127.0.0.0/8",), "192.0.2.9", "192.0.2.9"),
        (("127.0.0.0/8",), "198.51.100.1, 192.0.2.9", "192.0.2.9"),
        (("127.0.0.0/8", "192.0.2.9"), "198.51.100.1, 192.0.2.9", "198.51.100.1"),
    ],
)
def test_s13_only_a_trusted_proxy_determines_the_client_address(
    proxies: tuple[str, ...], forwarded: str, counted: str, set_limits: Callable[..., Any], app: Application
) -> None:
    set_limits()
    settings = replace(app.settings, trusted_proxies=proxies)
    config = uvicorn.Config(app, **uvicorn_options(settings))
    config.load()
    send_request(config.loaded_app, "GET", "/api/v1/utils/version", {"x-forwarded-for": forwarded})
    counters: MemoryStore = app.services.rate_limiter.store
    assert list(counters._states) == [("address", counted)]
