"""Products through the API: drafts, unique SKUs, photos as files and by URL, and deletion."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.support import factories
from tests.support.client import status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.factories.catalog import Customer, post_form
from tests.support.sample_media import build_orientation_image, encode_image, exif_with_location

PHONE_PHOTO = encode_image(build_orientation_image(120, 80), "JPEG", exif=exif_with_location(6))


def images_path(product: dict) -> str:
    return f"/products/{product['id']}/images"


def test_a_product_is_ready_unless_it_is_created_as_a_draft(customer: Customer) -> None:
    product = customer.create("/products/", {"name": "Linen wrap dress", "sku": "AN-1", "gender": "FEMALE"})
    assert product == {
        "id": product["id"],
        "created_at": product["created_at"],
        "updated_at": product["updated_at"],
        "owner_id": str(customer.owner.id),
        "organization_id": str(customer.organization.id),
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
        "external_id": None,
        "metadata": {},
    }
    draft = customer.client(
        "POST", f"/products/{customer.organization_query}&mode=basic", {"name": "Draft"}
    ).json()
    assert draft["state"] == "DRAFT"
    done = customer.client("PATCH", f"/products/{draft['id']}", {"state": "READY"})
    assert done.json()["state"] == "READY"


def test_skus_are_optional_and_unique_per_tenant(customer: Customer) -> None:
    customer.create("/products/", {"name": "Dress", "sku": "AN-1"})
    response = customer.client(
        "POST", f"/products/{customer.organization_query}", {"name": "Copy", "sku": "AN-1"}
    )
    assert status_and_code(response) == (409, "sku_taken")
    other = customer.create("/products/", {"name": "Other"})
    customer.create("/products/", {"name": "Third"})
    assert status_and_code(customer.client("PATCH", f"/products/{other['id']}", {"sku": "AN-1"})) == (
        409,
        "sku_taken",
    )
    assert customer.client("POST", "/products/", {"name": "Mine", "sku": "AN-1"}).status == 201


def test_one_of_many_concurrent_creates_with_the_same_sku_succeeds(customer: Customer) -> None:
    def create() -> int:
        return customer.client(
            "POST", f"/products/{customer.organization_query}", {"name": "Rush", "sku": "AN-1"}
        ).status

    assert sorted(run_concurrently(*[create] * 4)) == [201, 409, 409, 409]


def test_a_phone_photo_is_stored_upright_and_listed_with_its_product(customer: Customer) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    response = post_form(customer.client, images_path(product), PHONE_PHOTO, type="primary")
    assert response.status == 201, response.body
    image = response.json()
    assert (image["type"], image["width"], image["height"]) == ("primary", 80, 120)
    fetched = customer.client("GET", response.headers["location"].removeprefix("/api/v1"))
    assert (fetched.json(), fetched.headers["etag"]) == (image, response.headers["etag"])
    updated = customer.client("GET", f"/products/{product['id']}").json()
    assert updated["images"] == [image]
    assert updated["updated_at"] > product["updated_at"]
    served = customer.client("GET", image["url"].partition("/api/v1")[2])
    stored_image = Image.open(io.BytesIO(served.body))
    assert (stored_image.size, dict(stored_image.getexif())) == ((80, 120), {})


def test_a_photo_can_be_added_by_its_url(customer: Customer) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    first = post_form(customer.client, images_path(product), PHONE_PHOTO, type="primary").json()
    body = {"file_url": first["url"], "type": "front"}
    response = customer.client("POST", f"{images_path(product)}/from-url", body)
    assert (response.status, response.json()["url"], response.json()["type"]) == (201, first["url"], "front")
    page = customer.client("GET", f"{images_path(product)}?sort=created_at").json()
    assert [image["type"] for image in page["data"]] == ["primary", "front"]


@pytest.mark.parametrize(
    ("file", "status", "code"),
    [
        (b"%PDF-1.7 is not an image", 415, "not_an_image"),
        (PHONE_PHOTO[:-400], 422, "invalid_request"),
        (b"", 422, "invalid_request"),
    ],
)
def test_a_file_that_is_not_an_image_is_rejected(
    customer: Customer, file: bytes, status: int, code: str
) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    assert status_and_code(post_form(customer.client, images_path(product), file, type="primary")) == (
        status,
        code,
    )
    assert customer.client("GET", images_path(product)).json()["count"] == 0


def test_a_deleted_photo_is_removed_from_its_product(customer: Customer) -> None:
    product, other = (customer.create("/products/", {"name": name}) for name in ("Dress", "Coat"))
    image = post_form(customer.client, images_path(product), PHONE_PHOTO, type="primary").json()
    assert customer.client("DELETE", f"{images_path(other)}/{image['id']}").status == 404
    assert customer.client("DELETE", f"{images_path(product)}/{image['id']}").status == 204
    assert customer.client("GET", f"/products/{product['id']}").json()["images"] == []


def test_a_product_has_at_most_a_hundred_photos(customer: Customer) -> None:
    product = factories.make_product(organization=customer.organization)
    media = factories.make_media(organization=customer.organization)
    for _ in range(100):
        factories.make_product_image(product, media_id=media.id)
    response = post_form(customer.client, f"/products/{product.id}/images", PHONE_PHOTO, type="side")
    assert status_and_code(response) == (409, "too_many_images")


def test_a_product_in_a_look_cannot_be_deleted(customer: Customer) -> None:
    product = factories.make_product(organization=customer.organization)
    factories.make_look(
        factories.make_shooting(organization=customer.organization), main_product_id=product.id
    )
    assert status_and_code(customer.client("DELETE", f"/products/{product.id}")) == (409, "in_use")
    assert customer.client("GET", f"/products/{product.id}").status == 200


def test_products_can_be_filtered(customer: Customer) -> None:
    brand = customer.create("/brands/", {"name": "Atelier"})
    customer.create("/products/", {"name": "Dress", "brand_id": brand["id"], "category": "dresses"})
    customer.create("/products/", {"name": "Mug", "sku": "CUP-7", "category": "pottery"})

    def found(query: str) -> list[str]:
        response = customer.client("GET", f"/products/{customer.organization_query}&{query}")
        return [row["name"] for row in response.json()["data"]]

    assert found(f"brand_id={brand['id']}") == ["Dress"]
    assert found("category=pottery&state=READY") == ["Mug"]
    assert found("q=cup-7") == ["Mug"]
