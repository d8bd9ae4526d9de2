"""Brands through the API: slugs, defaults, logos, preconditions and deletion."""

from __future__ import annotations

from uuid import UUID

from handlers.app import Application
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.factories.catalog import Customer


def test_creating_a_brand_returns_all_its_fields(customer: Customer) -> None:
    response = customer.client(
        "POST", f"/brands/{customer.organization_query}", {"name": "Atelier Nørd & Söhne"}
    )
    brand = response.json()
    assert response.status == 201
    assert brand == {
        "id": brand["id"],
        "created_at": brand["created_at"],
        "updated_at": brand["updated_at"],
        "owner_id": str(customer.owner.id),
        "organization_id": str(customer.organization.id),
        "name": "Atelier Nørd & Söhne",
        "slug": "atelier-nrd-sohne",
        "description": None,
        "website": None,
        "logo_url": None,
        "default_guidelines_id": None,
        "default_style_id": None,
        "default_background_preset_id": None,
        "default_resolution_preset_id": None,
    }
    fetched = customer.client("GET", response.headers["location"].removeprefix("/api/v1"))
    assert fetched.json() == brand
    assert fetched.headers["etag"] == response.headers["etag"]


def test_a_derived_slug_gets_a_suffix_and_a_duplicate_given_slug_is_rejected(customer: Customer) -> None:
    slugs = [customer.create("/brands/", {"name": "Atelier Nord"})["slug"] for _ in range(3)]
    assert slugs == ["atelier-nord", "atelier-nord-2", "atelier-nord-3"]
    response = customer.client(
        "POST", f"/brands/{customer.organization_query}", {"name": "Another", "slug": "atelier-nord"}
    )
    assert status_and_code(response) == (409, "slug_taken")
    other = customer.create("/brands/", {"name": "Another"})
    response = customer.client("PATCH", f"/brands/{other['id']}", {"slug": "atelier-nord"})
    assert status_and_code(response) == (409, "slug_taken")


def test_a_name_without_latin_letters_gets_the_slug_brand(customer: Customer) -> None:
    assert customer.create("/brands/", {"name": "雪"})["slug"] == "brand"
    assert customer.create("/brands/", {"name": "月"})["slug"] == "brand-2"


def test_another_tenant_can_use_the_same_slug(customer: Customer) -> None:
    customer.create("/brands/", {"name": "Atelier", "slug": "atelier"})
    response = customer.client("POST", "/brands/", {"name": "Atelier", "slug": "atelier"})
    assert (response.status, response.json()["organization_id"]) == (201, None)


def test_slugs_of_concurrently_created_brands_are_unique(customer: Customer) -> None:
    brands = run_concurrently(*[lambda: customer.create("/brands/", {"name": "Rush"})] * 8)
    assert len({brand["slug"] for brand in brands}) == 8


def test_defaults_must_belong_to_the_tenant_of_the_brand_or_be_public(customer: Customer) -> None:
    personal = factories.make_style(owner=customer.owner)
    foreign = factories.make_style()
    public = factories.make_style(owner_id=None, public=True)
    brand = customer.create("/brands/", {"name": "Atelier", "default_style_id": str(public.id)})
    path = f"/brands/{brand['id']}"
    assert status_and_code(customer.client("PATCH", path, {"default_style_id": str(personal.id)})) == (
        409,
        "scope_mismatch",
    )
    assert status_and_code(customer.client("PATCH", path, {"default_style_id": str(foreign.id)})) == (
        404,
        "not_found",
    )
    response = customer.client("PATCH", path, {"default_style_id": None})
    assert (response.status, response.json()["default_style_id"]) == (200, None)


def test_a_logo_is_set_with_the_url_of_a_stored_image(app: Application, customer: Customer) -> None:
    media = factories.make_media(organization=customer.organization)
    url = f"{app.settings.public_url}/api/v1/files/media/{media.id}/file.jpg"
    brand = customer.create("/brands/", {"name": "Atelier", "logo_url": url})
    assert brand["logo_url"] == url
    foreign = factories.make_media()
    url = f"{app.settings.public_url}/api/v1/files/media/{foreign.id}/file.jpg"
    response = customer.client("PATCH", f"/brands/{brand['id']}", {"logo_url": url})
    assert status_and_code(response) == (404, "not_found")
    assert customer.client("PATCH", f"/brands/{brand['id']}", {"logo_url": None}).json()["logo_url"] is None


def test_a_logo_is_returned_after_its_image_is_no_longer_public(customer: Customer) -> None:
    withdrawn = factories.make_media(organization=factories.make_organization())
    brand = factories.make_brand(organization=customer.organization, logo_media_id=withdrawn.id)
    shown = customer.client("GET", f"/brands/{brand.id}").json()
    assert str(withdrawn.id) in shown["logo_url"]


def test_deleting_a_brand_updates_its_products_and_shootings_and_keeps_them(customer: Customer) -> None:
    brand = customer.create("/brands/", {"name": "Atelier"})
    product = customer.create("/products/", {"name": "Dress", "brand_id": brand["id"]})
    shooting = factories.make_shooting(organization=customer.organization, brand_id=UUID(brand["id"]))
    assert customer.client("DELETE", f"/brands/{brand['id']}").status == 204
    updated = customer.client("GET", f"/products/{product['id']}").json()
    assert updated["brand_id"] is None
    assert updated["updated_at"] > product["updated_at"]
    assert customer.client("GET", f"/shootings/{shooting.id}").json()["brand_id"] is None
    assert customer.client("GET", f"/brands/{brand['id']}").status == 404


def test_a_list_is_searched_by_part_of_the_name_case_insensitively(customer: Customer) -> None:
    for name in ("Atelier Nord", "Studio 100%", "Studio 100x"):
        customer.create("/brands/", {"name": name})

    def found(q: str) -> list[str]:
        rows = customer.client("GET", f"/brands/{customer.organization_query}&q={q}&sort=name").json()["data"]
        return [row["name"] for row in rows]

    assert found("NORD") == ["Atelier Nord"]
    assert found("100%25") == ["Studio 100%"]


def test_a_rejected_brand_leaves_no_row(customer: Customer) -> None:
    unknown = "01990000-0000-7000-8000-000000000000"
    response = customer.client(
        "POST", f"/brands/{customer.organization_query}", {"name": "Lost", "default_style_id": unknown}
    )
    assert response.status == 404
    assert customer.client("GET", f"/brands/{customer.organization_query}").json()["count"] == 0
