"""Who was removed or got a lower role is refused with the next request, with tokens of before too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from db.models import Organization, User
from db.session import Database
from studio.identity.passwords import hash_password
from tests import factories
from tests.api.conftest import Client


@pytest.fixture
def owner(database: Database) -> User:
    return factories.make_user(hashed_password=hash_password("sartiq-demo"))


@pytest.fixture
def organization(owner: User) -> Organization:
    return factories.make_organization(owner)


@pytest.fixture
def person(organization: Organization) -> User:
    person = factories.make_user()
    factories.make_membership(organization, person, role="admin")
    return person


def test_s16_a_new_role_counts_with_the_next_request(
    client_of: Callable[..., Client], organization: Organization, owner: User, person: User
) -> None:
    client, theirs = client_of(owner), client_of(person)
    path = f"/organizations/{organization.id}"
    brand = factories.make_brand(organization=organization)
    for role, may_rename, may_change_brands in (
        ("admin", 200, 200),
        ("member", 403, 200),
        ("viewer", 403, 403),
        ("admin", 200, 200),
    ):
        assert client("PATCH", f"{path}/members/{person.id}", {"role": role}).json()["role"] == role
        assert theirs("PATCH", path, {"name": role}).status == may_rename
        assert theirs("PATCH", f"/brands/{brand.id}", {"name": role}).status == may_change_brands
        assert theirs("GET", f"/brands/{brand.id}").status == 200


def test_s16_a_removed_member_sees_nothing_with_the_next_request(
    client_of: Callable[..., Client], organization: Organization, owner: User, person: User
) -> None:
    client, theirs = client_of(owner), client_of(person)
    path, brand = f"/organizations/{organization.id}", factories.make_brand(organization=organization)
    assert theirs("GET", f"/brands/{brand.id}").status == 200
    assert client("DELETE", f"{path}/members/{person.id}").status == 204
    assert client("GET", f"{path}/members/{person.id}").status == 404
    for method, gone in (
        ("GET", path),
        ("PATCH", path),
        ("GET", f"{path}/members"),
        ("GET", f"/brands/?organization_id={organization.id}"),
        ("GET", f"/brands/{brand.id}"),
        ("DELETE", f"/brands/{brand.id}"),
    ):
        assert theirs(method, gone, {"name": "A"} if method == "PATCH" else None).status == 404, gone
    assert theirs("GET", "/users/me").json()["role"] is None


def test_s16_who_handed_the_organization_over_is_no_owner_with_the_next_request(
    client_of: Callable[..., Client], organization: Organization, owner: User, person: User
) -> None:
    client, theirs = client_of(owner), client_of(person)
    path = f"/organizations/{organization.id}"
    assert theirs("DELETE", path).status == 403
    body = {"user_id": str(person.id), "password": "sartiq-demo"}
    assert client("POST", f"{path}/transfer-ownership", body).status == 200
    assert client("DELETE", path).status == 403
    assert client("POST", f"{path}/transfer-ownership", body).status == 403
    assert theirs("DELETE", path).status == 204
