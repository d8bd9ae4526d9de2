"""Brands through the API: slugs, defaults, pictures, and what stays when one goes."""

from __future__ import annotations

from uuid import UUID

from handlers.app import Application
from tests.support import factories
from tests.support.concurrency import run_concurrently
from tests.support.factories.catalogue import Customer, status_and_code


def test_a_new_brand_is_answered_whole_and_can_be_fetched(customer: Customer) -> None:
    reply = customer.client(
        "POST", f"/brands/{customer.organization_query}", {"name": "Atelier Nørd & Söhne"}
    )
    brand = reply.json()
    assert reply.status == 201
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
    fetched = customer.client("GET", reply.headers["location"].removeprefix("/api/v1"))
    assert fetched.json() == brand
    assert fetched.headers["etag"] == reply.headers["etag"]


def test_a_derived_slug_makes_way_and_a_given_one_is_refused(customer: Customer) -> None:
    slugs = [customer.create("/brands/", {"name": "Atelier Nord"})["slug"] for _ in range(3)]
    assert slugs == ["atelier-nord", "atelier-nord-2", "atelier-nord-3"]
    reply = customer.client(
        "POST", f"/brands/{customer.organization_query}", {"name": "Another", "slug": "atelier-nord"}
    )
    assert status_and_code(reply) == (409, "slug_taken")
    other = customer.create("/brands/", {"name": "Another"})
    reply = customer.client("PATCH", f"/brands/{other['id']}", {"slug": "atelier-nord"})
    assert status_and_code(reply) == (409, "slug_taken")


def test_a_name_without_letters_of_the_alphabet_gets_the_slug_of_its_kind(customer: Customer) -> None:
    assert customer.create("/brands/", {"name": "雪"})["slug"] == "brand"
    assert customer.create("/brands/", {"name": "月"})["slug"] == "brand-2"


def test_the_same_slug_is_free_in_another_scope(customer: Customer) -> None:
    customer.create("/brands/", {"name": "Atelier", "slug": "atelier"})
    reply = customer.client("POST", "/brands/", {"name": "Atelier", "slug": "atelier"})
    assert (reply.status, reply.json()["organization_id"]) == (201, None)


def test_slugs_stay_unique_when_many_are_made_at_once(customer: Customer) -> None:
    brands = run_concurrently(*[lambda: customer.create("/brands/", {"name": "Rush"})] * 8)
    assert len({brand["slug"] for brand in brands}) == 8


def test_defaults_must_be_of_the_brands_scope_or_public(customer: Customer) -> None:
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
    reply = customer.client("PATCH", path, {"default_style_id": None})
    assert (reply.status, reply.json()["default_style_id"]) == (200, None)


def test_a_logo_is_named_by_an_address_of_ours(app: Application, customer: Customer) -> None:
    media = factories.make_media(organization=customer.organization)
    address = f"{app.settings.public_url}/api/v1/files/media/{media.id}/file.jpg"
    brand = customer.create("/brands/", {"name": "Atelier", "logo_url": address})
    assert brand["logo_url"] == address
    strange = factories.make_media()
    address = f"{app.settings.public_url}/api/v1/files/media/{strange.id}/file.jpg"
    reply = customer.client("PATCH", f"/brands/{brand['id']}", {"logo_url": address})
    assert status_and_code(reply) == (404, "not_found")
    assert customer.client("PATCH", f"/brands/{brand['id']}", {"logo_url": None}).json()["logo_url"] is None


def test_a_logo_that_was_public_is_still_shown_when_it_no_longer_is(customer: Customer) -> None:
    withdrawn = factories.make_media(organization=factories.make_organization())
    brand = factories.make_brand(organization=customer.organization, logo_media_id=withdrawn.id)
    shown = customer.client("GET", f"/brands/{brand.id}").json()
    assert str(withdrawn.id) in shown["logo_url"]


def test_products_and_shootings_of_a_deleted_brand_stay_and_count_as_changed(customer: Customer) -> None:
    brand = customer.create("/brands/", {"name": "Atelier"})
    product = customer.create("/products/", {"name": "Dress", "brand_id": brand["id"]})
    shooting = factories.make_shooting(organization=customer.organization, brand_id=UUID(brand["id"]))
    assert customer.client("DELETE", f"/brands/{brand['id']}").status == 204
    left = customer.client("GET", f"/products/{product['id']}").json()
    assert left["brand_id"] is None
    assert left["updated_at"] > product["updated_at"]
    assert customer.client("GET", f"/shootings/{shooting.id}").json()["brand_id"] is None
    assert customer.client("GET", f"/brands/{brand['id']}").status == 404


def test_a_changed_brand_refuses_an_outdated_tag(customer: Customer) -> None:
    brand = customer.create("/brands/", {"name": "Atelier"})
    path = f"/brands/{brand['id']}"
    tag = {"if-match": customer.client("GET", path).headers["etag"]}
    first = customer.client("PATCH", path, {"description": "One"}, headers=tag)
    assert first.status == 200
    assert status_and_code(customer.client("PATCH", path, {"description": "Two"}, headers=tag)) == (
        412,
        "precondition_failed",
    )
    assert customer.client("DELETE", path, headers={"if-match": first.headers["etag"]}).status == 204


def test_a_list_finds_by_a_part_of_the_name_in_any_case(customer: Customer) -> None:
    for name in ("Atelier Nord", "Studio 100%", "Studio 100x"):
        customer.create("/brands/", {"name": name})

    def found(q: str) -> list[str]:
        rows = customer.client("GET", f"/brands/{customer.organization_query}&q={q}&sort=name").json()["data"]
        return [row["name"] for row in rows]

    assert found("NORD") == ["Atelier Nord"]
    assert found("100%25") == ["Studio 100%"]


def test_a_refused_brand_leaves_nothing(customer: Customer) -> None:
    unknown = "01990000-0000-7000-8000-000000000000"
    reply = customer.client(
        "POST", f"/brands/{customer.organization_query}", {"name": "Lost", "default_style_id": unknown}
    )
    assert reply.status == 404
    assert customer.client("GET", f"/brands/{customer.organization_query}").json()["count"] == 0
