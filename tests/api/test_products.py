"""Products through the API: drafts, unique SKUs, photographs as files and as uploads, and what cannot go."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests import factories
from tests.api.catalogue import House, code_of, post_form
from tests.api.conftest import Client
from tests.racing import at_once
from tests.studio.media_samples import encoded, located_exif, scene

PHONE_PHOTOGRAPH = encoded(scene(120, 80), "JPEG", exif=located_exif(6))


def images_of(product: dict) -> str:
    return f"/products/{product['id']}/images"


def test_a_product_is_ready_unless_it_is_made_as_a_draft(house: House) -> None:
    product = house.create("/products/", {"name": "Linen wrap dress", "sku": "AN-1", "gender": "FEMALE"})
    assert product == {
        "id": product["id"],
        "created_at": product["created_at"],
        "updated_at": product["updated_at"],
        "owner_id": str(house.owner.id),
        "organization_id": str(house.organization.id),
        "sku": "AN-1",
        "name": "Linen wrap dress",
        "description": None,
        "category": None,
        "gender": "FEMALE",
        "materials": None,
        "color": None,
        "brand_id": None,
        "cover_image": None,
        "images": [],
        "state": "READY",
        "public": False,
    }
    draft = house.client("POST", f"/products/{house.scope}&mode=basic", {"name": "Draft"}).json()
    assert draft["state"] == "DRAFT"
    done = house.client("PATCH", f"/products/{draft['id']}", {"state": "READY"})
    assert done.json()["state"] == "READY"


def test_an_sku_is_unique_in_its_scope_and_absent_ones_do_not_meet(house: House) -> None:
    house.create("/products/", {"name": "Dress", "sku": "AN-1"})
    reply = house.client("POST", f"/products/{house.scope}", {"name": "Copy", "sku": "AN-1"})
    assert code_of(reply) == (409, "sku_taken")
    other = house.create("/products/", {"name": "Other"})
    house.create("/products/", {"name": "Third"})
    assert code_of(house.client("PATCH", f"/products/{other['id']}", {"sku": "AN-1"})) == (409, "sku_taken")
    assert house.client("POST", "/products/", {"name": "Mine", "sku": "AN-1"}).status == 201


def test_of_many_equal_skus_at_once_one_is_taken(house: House) -> None:
    def make() -> int:
        return house.client("POST", f"/products/{house.scope}", {"name": "Rush", "sku": "AN-1"}).status

    assert sorted(at_once(*[make] * 4)) == [201, 409, 409, 409]


def test_a_photograph_from_a_phone_is_turned_upright_and_listed_with_its_product(house: House) -> None:
    product = house.create("/products/", {"name": "Dress"})
    reply = post_form(house.client, images_of(product), PHONE_PHOTOGRAPH, type="primary")
    assert reply.status == 201, reply.body
    image = reply.json()
    assert (image["type"], image["width"], image["height"]) == ("primary", 80, 120)
    fetched = house.client("GET", reply.headers["location"].removeprefix("/api/v1"))
    assert (fetched.json(), fetched.headers["etag"]) == (image, reply.headers["etag"])
    after = house.client("GET", f"/products/{product['id']}").json()
    assert after["images"] == [image]
    assert after["updated_at"] > product["updated_at"]
    stored = house.client("GET", image["url"].partition("/api/v1")[2])
    picture = Image.open(io.BytesIO(stored.body))
    assert (picture.size, dict(picture.getexif())) == ((80, 120), {})


def test_a_photograph_is_named_by_its_address_too(house: House) -> None:
    product = house.create("/products/", {"name": "Dress"})
    first = post_form(house.client, images_of(product), PHONE_PHOTOGRAPH, type="primary").json()
    reply = house.client("POST", images_of(product), {"file_url": first["url"], "type": "front"})
    assert (reply.status, reply.json()["url"], reply.json()["type"]) == (201, first["url"], "front")
    page = house.client("GET", f"{images_of(product)}?sort=created_at").json()
    assert [image["type"] for image in page["data"]] == ["primary", "front"]


@pytest.mark.parametrize(
    ("file", "status", "code"),
    [
        (b"%PDF-1.7 is no picture", 415, "not_an_image"),
        (PHONE_PHOTOGRAPH[:-400], 422, "invalid_request"),
        (b"", 422, "invalid_request"),
    ],
)
def test_a_file_that_is_no_picture_is_refused(house: House, file: bytes, status: int, code: str) -> None:
    product = house.create("/products/", {"name": "Dress"})
    assert code_of(post_form(house.client, images_of(product), file, type="primary")) == (status, code)
    assert house.client("GET", images_of(product)).json()["count"] == 0


def test_a_deleted_photograph_is_gone_from_its_product(house: House) -> None:
    product, other = (house.create("/products/", {"name": name}) for name in ("Dress", "Coat"))
    image = post_form(house.client, images_of(product), PHONE_PHOTOGRAPH, type="primary").json()
    assert house.client("DELETE", f"{images_of(other)}/{image['id']}").status == 404
    assert house.client("DELETE", f"{images_of(product)}/{image['id']}").status == 204
    assert house.client("GET", f"/products/{product['id']}").json()["images"] == []


def test_a_product_holds_a_hundred_photographs_and_no_more(house: House) -> None:
    product = factories.make_product(organization=house.organization)
    media = factories.make_media(organization=house.organization)
    for _ in range(100):
        factories.make_product_image(product, media_id=media.id)
    reply = post_form(house.client, f"/products/{product.id}/images", PHONE_PHOTOGRAPH, type="side")
    assert code_of(reply) == (409, "too_many_images")


def test_a_product_in_a_look_cannot_be_deleted(house: House) -> None:
    product = factories.make_product(organization=house.organization)
    factories.make_look(factories.make_shooting(organization=house.organization), main_product_id=product.id)
    assert code_of(house.client("DELETE", f"/products/{product.id}")) == (409, "in_use")
    assert house.client("GET", f"/products/{product.id}").status == 200


def test_filters_narrow_the_list_and_a_foreign_brand_is_not_found(house: House) -> None:
    brand = house.create("/brands/", {"name": "Atelier"})
    house.create("/products/", {"name": "Dress", "brand_id": brand["id"], "category": "dresses"})
    house.create("/products/", {"name": "Mug", "sku": "CUP-7", "category": "pottery"})

    def found(query: str) -> list[str]:
        reply = house.client("GET", f"/products/{house.scope}&{query}")
        return [row["name"] for row in reply.json()["data"]]

    assert found(f"brand_id={brand['id']}") == ["Dress"]
    assert found("category=pottery&state=READY") == ["Mug"]
    assert found("q=cup-7") == ["Mug"]
    foreign = factories.make_brand()
    assert house.client("GET", f"/products/{house.scope}&brand_id={foreign.id}").status == 404


def test_a_stranger_finds_neither_product_nor_photographs(house: House, client_of) -> None:
    stranger: Client = client_of(factories.make_user())
    product = house.create("/products/", {"name": "Dress"})
    image = post_form(house.client, images_of(product), PHONE_PHOTOGRAPH, type="primary").json()
    for path in (f"/products/{product['id']}", images_of(product), f"{images_of(product)}/{image['id']}"):
        assert stranger("GET", path).status == 404
    assert post_form(stranger, images_of(product), PHONE_PHOTOGRAPH, type="primary").status == 404
    assert stranger("GET", image["url"].partition("/api/v1")[2]).status == 404
