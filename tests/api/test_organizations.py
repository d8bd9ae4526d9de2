"""Organizations and members through the API: roles, ownership, and what other users see."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from db.models import Organization, User
from db.session import Database
from handlers.app import Application
from studio.media.ingest import file_url
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import assert_conflict
from tests.support.factories.catalog import Customer
from tests.support.factories.invitations import make_invitation


@pytest.fixture
def owner(database: Database) -> User:
    return factories.make_user(email="owner@example.com", full_name="Ola Owner")


@pytest.fixture
def organization(owner: User) -> Organization:
    return factories.make_organization(owner, name="Maison Demo", slug="maison-demo")


@pytest.fixture
def client_as(client_for: Callable[..., Client], organization: Organization) -> Callable[[str], Client]:
    """Return a function that creates a member with a role and returns their client."""

    def make(role: str) -> Client:
        user = factories.make_user()
        factories.make_membership(organization, user, role=role)
        return client_for(user)

    return make


def members_path(organization: Organization, user: User | None = None) -> str:
    return f"/organizations/{organization.id}/members" + (f"/{user.id}" if user else "")


def test_the_creator_of_an_organization_is_its_owner_and_only_member(client: Client, owner: User) -> None:
    response = client("POST", "/organizations/", {"name": "Maison Démo, Paris"})
    shown = response.json()
    assert response.status == 201, response.body
    assert response.headers["location"] == f"/api/v1/organizations/{shown['id']}"
    assert shown == {
        "id": shown["id"],
        "created_at": shown["created_at"],
        "updated_at": shown["updated_at"],
        "name": "Maison Démo, Paris",
        "slug": "maison-demo-paris",
        "logo_url": None,
        "owner_id": str(owner.id),
        "members_count": 1,
        "retention": {"uploads_days": None, "rejected_predictions_days": None, "audit_addresses_days": None},
        "requires_second_factor": False,
        "second_factor_from": None,
    }
    assert client("GET", f"/organizations/{shown['id']}").json() == shown
    assert client("GET", f"/organizations/{shown['id']}").headers["etag"] == response.headers["etag"]
    assert client("GET", "/users/me").json()["role"] == "owner"


def test_s46_slugs_are_unique_and_a_derived_slug_gets_a_random_suffix(
    client: Client, client_for: Callable[..., Client], organization: Organization
) -> None:
    stranger = client_for(factories.make_user())
    assert_conflict(stranger("POST", "/organizations/", {"name": "X", "slug": "maison-demo"}), "slug_taken")
    slugs = {stranger("POST", "/organizations/", {"name": "Maison Demo"}).json()["slug"] for _ in range(3)}
    assert len(slugs) == 3
    assert all(re.fullmatch(r"maison-demo-[0-9a-f]{8}", slug) for slug in slugs), slugs
    assert stranger("POST", "/organizations/", {"name": "東京"}).json()["slug"] == "organization"
    other = factories.make_organization(factories.make_user())
    path = f"/organizations/{organization.id}"
    assert_conflict(client("PATCH", path, {"slug": other.slug}), "slug_taken")


def test_users_see_only_their_organizations_and_superusers_see_all(
    client: Client, client_for: Callable[..., Client], organization: Organization
) -> None:
    other = factories.make_organization()
    assert [row["id"] for row in client("GET", "/organizations/").json()["data"]] == [str(organization.id)]
    assert client("GET", "/organizations/?q=MAISON").json()["count"] == 1
    assert client("GET", "/organizations/?q=nothing").json()["count"] == 0
    assert client("GET", f"/organizations/{other.id}").status == 404
    superuser_client = client_for(factories.make_user(is_superuser=True))
    assert superuser_client("GET", "/organizations/").json()["count"] >= 2
    assert superuser_client("GET", f"/organizations/{other.id}").status == 200


def test_an_update_of_an_older_version_is_rejected(client: Client, organization: Organization) -> None:
    path = f"/organizations/{organization.id}"
    tag = {"if-match": client("GET", path).headers["etag"]}
    renamed = client("PATCH", path, {"name": "A"}, headers=tag).json()
    assert (renamed["name"], renamed["slug"]) == ("A", "maison-demo")
    assert client("PATCH", path, {"name": "B"}, headers=tag).status == 412
    assert client("DELETE", path, headers=tag).status == 412


def test_the_logo_is_an_image_of_the_organization(
    app: Application, client: Client, owner: User, organization: Organization
) -> None:
    path = f"/organizations/{organization.id}"
    media = factories.make_media(organization=organization)
    url = file_url(app.settings.public_url, media.id, "jpg")
    assert client("PATCH", path, {"logo_url": url}).json()["logo_url"] == url
    assert client("GET", path).json()["logo_url"] == url
    assert client("PATCH", path, {"logo_url": None}).json()["logo_url"] is None
    personal = file_url(app.settings.public_url, factories.make_media(owner=owner).id, "jpg")
    assert_conflict(client("PATCH", path, {"logo_url": personal}), "scope_mismatch")
    foreign = file_url(app.settings.public_url, factories.make_media().id, "jpg")
    assert client("PATCH", path, {"logo_url": foreign}).status == 404


def test_an_organization_with_rows_cannot_be_deleted(
    client: Client, client_as: Callable[[str], Client], organization: Organization
) -> None:
    path = f"/organizations/{organization.id}"
    assert client_as("admin")("DELETE", path).status == 403
    brand = factories.make_brand(organization=organization)
    assert_conflict(client("DELETE", path), "not_empty")
    assert client("DELETE", f"/brands/{brand.id}").status == 204
    media = factories.make_media(organization=organization)
    factories.make_upload(organization=organization, media_resource_id=media.id)
    organization.logo_media_id = media.id
    factories.make(organization)
    assert client("DELETE", path).status == 204
    assert client("GET", path).status == 404


def test_members_are_added_by_their_email_address(
    client: Client, organization: Organization, owner: User
) -> None:
    user = factories.make_user(email="second@example.com", full_name="Sam Second")
    factories.make_membership(factories.make_organization(owner), user)
    response = client("POST", members_path(organization), {"email": "Second@example.com", "role": "member"})
    shown = response.json()
    assert response.status == 201, response.body
    assert response.headers["location"] == f"/api/v1{members_path(organization, user)}"
    assert shown == {
        "id": shown["id"],
        "created_at": shown["created_at"],
        "updated_at": shown["updated_at"],
        "organization_id": str(organization.id),
        "user_id": str(user.id),
        "email": "second@example.com",
        "full_name": "Sam Second",
        "role": "member",
        "has_second_factor": False,
    }
    assert client("GET", members_path(organization, user)).json() == shown
    assert client("GET", f"/organizations/{organization.id}").json()["members_count"] == 2
    repeated = client("POST", members_path(organization), {"email": "second@example.com", "role": "viewer"})
    assert_conflict(repeated, "already_member")


def test_the_number_of_members_moves_updated_at_of_the_organization(
    client: Client, organization: Organization, owner: User
) -> None:
    path, times = f"/organizations/{organization.id}", []

    def note() -> None:
        times.append(client("GET", path).json()["updated_at"])

    note()
    colleague = factories.make_user()
    factories.make_membership(factories.make_organization(owner), colleague)
    assert (
        client("POST", members_path(organization), {"email": colleague.email, "role": "member"}).status == 201
    )
    note()
    assert client("DELETE", members_path(organization, colleague)).status == 204
    note()
    assert times == sorted(set(times))


def test_s14_adding_a_member_does_not_reveal_which_accounts_exist(
    client: Client, superuser: Client, organization: Organization
) -> None:
    factories.make_user(email="known@example.com", full_name="Kim Known")
    factories.make_user(email="locked@example.com", is_active=False)
    outcomes = []
    for name in ("known", "locked", "nobody"):
        response = client(
            "POST", members_path(organization), {"email": f"{name}@example.com", "role": "viewer"}
        )
        outcomes.append((response.status, {**response.json(), "request_id": None}))
    assert outcomes == [outcomes[2]] * 3
    assert outcomes[0][0] == 404
    known = {"email": "known@example.com", "role": "viewer"}
    assert superuser("POST", members_path(organization), known).json()["full_name"] == "Kim Known"


def test_only_members_can_list_the_members(
    client_as: Callable[[str], Client],
    client_for: Callable[..., Client],
    organization: Organization,
    owner: User,
) -> None:
    viewer, stranger = client_as("viewer"), client_for(factories.make_user())
    listed = viewer("GET", members_path(organization)).json()
    assert [row["role"] for row in listed["data"]] == ["viewer", "owner"]
    assert viewer("GET", members_path(organization, owner)).json()["full_name"] == "Ola Owner"
    assert stranger("GET", members_path(organization)).status == 404
    assert stranger("GET", members_path(organization, owner)).status == 404


def test_members_and_invitations_of_other_organizations_are_not_listed(
    client: Client, organization: Organization, owner: User
) -> None:
    """This includes other organizations of the same owner."""
    other = factories.make_organization(owner)
    factories.make_membership(other)
    make_invitation(other)
    assert [row["user_id"] for row in client("GET", members_path(organization)).json()["data"]] == [
        str(owner.id)
    ]
    assert client("GET", f"/organizations/{organization.id}/invitations").json()["data"] == []


def test_an_update_of_an_older_membership_is_rejected(client: Client, organization: Organization) -> None:
    user = factories.make_user()
    factories.make_membership(organization, user)
    path = members_path(organization, user)
    tag = {"if-match": client("GET", path).headers["etag"]}
    assert client("PATCH", path, {"role": "viewer"}, headers=tag).status == 200
    assert client("PATCH", path, {"role": "admin"}, headers=tag).status == 412
    assert client("DELETE", path, headers=tag).status == 412
    assert client("GET", path).json()["role"] == "viewer"


def test_the_owner_can_be_neither_demoted_nor_removed(
    client: Client, client_as: Callable[[str], Client], organization: Organization, owner: User
) -> None:
    for caller in (client, client_as("admin")):
        assert_conflict(
            caller("PATCH", members_path(organization, owner), {"role": "viewer"}), "owner_required"
        )
        assert_conflict(caller("DELETE", members_path(organization, owner)), "owner_required")
    assert client("PATCH", members_path(organization, owner), {"role": "owner"}).status == 422


def test_the_retention_is_set_property_by_property(customer: Customer) -> None:
    path = f"/organizations/{customer.organization.id}"
    nothing = dict.fromkeys(("uploads_days", "rejected_predictions_days", "audit_addresses_days"))
    assert customer.client("GET", path).json()["retention"] == nothing
    for changes in ({"uploads_days": 30}, {"audit_addresses_days": 3650}, {"uploads_days": None}):
        nothing |= changes
        response = customer.client("PATCH", path, {"retention": changes})
        assert (response.status, response.json()["retention"]) == (200, nothing)
    assert customer.client("GET", path).json()["retention"] == nothing
    for invalid in ({"uploads_days": 0}, {"uploads_days": 3651}, {"photos_days": 1}, None):
        assert customer.client("PATCH", path, {"retention": invalid}).status == 422
