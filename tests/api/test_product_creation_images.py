"""Images in the body that creates a product: URLs, data URLs, their limits, and what is left if one fails."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from db.models import MediaResource, Product, ProductImage
from db.session import Database, current_session
from handlers.app import Application
from tests.support.client import ClientResponse, status_and_code
from tests.support.factories.catalog import Customer
from tests.support.sample_media import build_orientation_image, encode_image, exif_with_location, png_bomb

PHOTO = encode_image(build_orientation_image(120, 80), "JPEG", exif=exif_with_location(6))
BACK = encode_image(build_orientation_image(60, 40), "PNG")


def data_url(content: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def create(customer: Customer, body: dict[str, Any], **headers: str) -> ClientResponse:
    path = f"/products/{customer.organization_query}"
    return customer.client("POST", path, {"name": "Dress"} | body, headers=headers or None)


def count_rows(database: Database) -> tuple[int, ...]:
    """Return the numbers of products, of their images and of stored images."""
    with database.transaction(write=False):
        # unscoped: counts the rows of all tenants
        counts = [select(func.count()).select_from(model) for model in (Product, ProductImage, MediaResource)]
        return tuple(current_session().scalar(count) or 0 for count in counts)


def list_files(app: Application) -> set[Path]:
    return {path for path in app.settings.data_dir.rglob("*") if path.is_file() and "media" in path.parts}


def test_a_product_is_created_with_the_images_of_its_body(customer: Customer) -> None:
    response = create(
        customer,
        {
            "images": [
                {"url": data_url(BACK, "image/png"), "type": "back"},
                {"url": data_url(PHOTO), "type": "primary"},
                {"url": data_url(PHOTO, "image/png"), "type": "primary"},
            ]
        },
    )
    assert response.status == 201, response.body
    product = response.json()
    assert [(image["type"], image["width"], image["height"]) for image in product["images"]] == [
        ("back", 60, 40),
        ("primary", 80, 120),
        ("primary", 80, 120),
    ]
    # The same photo is stored once, and the first primary image is the cover.
    assert product["cover_image"] == product["images"][1]["url"] == product["images"][2]["url"]
    assert customer.client("GET", f"/products/{product['id']}").json() == product
    copy = create(customer, {"images": [{"url": product["cover_image"], "type": "front"}]}).json()
    assert (copy["images"][0]["url"], copy["cover_image"]) == (product["cover_image"], None)


def test_a_cover_can_be_a_data_url_and_wins_over_a_primary_image(customer: Customer) -> None:
    body = {"cover_image": data_url(BACK), "images": [{"url": data_url(PHOTO), "type": "primary"}]}
    product = create(customer, body).json()
    assert product["cover_image"] not in (None, product["images"][0]["url"])


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        (
            data_url(b"%PDF-1.7"),
            "The content is a PDF document: send a JPEG, PNG, WEBP, AVIF, HEIC or GIF image",
        ),
        (data_url(PHOTO[:-100]), "The image is damaged or incomplete"),
        ("data:image/png;base64,AAAAA", "The data URL is not valid base64"),
        (data_url(bytes(10_000_001)), "A data URL may have at most 10000000 bytes: upload the file instead"),
    ],
    ids=["no image", "damaged", "not base64", "too large"],
)
def test_nothing_is_stored_if_an_image_is_rejected(
    app: Application, customer: Customer, database: Database, url: str, detail: str
) -> None:
    rows, files = count_rows(database), list_files(app)
    images = [{"url": data_url(PHOTO), "type": "primary"}, {"url": url, "type": "back"}]
    response = create(customer, {"images": images, "cover_image": data_url(BACK)})
    problem = response.json()
    assert (status_and_code(response), problem["detail"]) == ((409, "image_not_usable"), detail)
    assert problem["pointer"] == "/images/1/url"
    assert (count_rows(database), list_files(app)) == (rows, files)


def test_the_limits_of_uploads_apply_to_data_urls(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = create(customer, {"cover_image": data_url(png_bomb(20_000, 20_000))})
    assert (*status_and_code(bomb), bomb.json()["pointer"]) == (409, "image_not_usable", "/cover_image")
    # Together the images of a request have at most the pixels of one upload.
    monkeypatch.setattr("studio.media.fetching.MAX_PIXELS", 120 * 80 + 60 * 40 - 1)
    images = [{"url": data_url(content), "type": "side"} for content in (PHOTO, BACK)]
    assert create(customer, {"images": images[:1]}).status == 201
    rejected = create(customer, {"images": images})
    assert (*status_and_code(rejected), rejected.json()["pointer"]) == (
        409,
        "image_not_usable",
        "/images/1/url",
    )


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (
            "http://localhost:8000/api/v1/files/media/01990000-5eed-7000-8000-0014000000ff/file.jpg",
            "not_found",
        ),
        ("http://localhost:8000/api/v1/brands/", "target_not_allowed"),
        ("https://localhost/dress.jpg", "target_not_allowed"),
        (f"https://example.com/{'a' * 2029}", "target_not_allowed"),
    ],
)
def test_an_image_that_cannot_be_used_by_its_url_is_named(
    app: Application, customer: Customer, database: Database, url: str, code: str
) -> None:
    rows = count_rows(database)
    url = url.replace("http://localhost:8000", app.settings.public_url)
    images = [{"url": data_url(PHOTO), "type": "primary"}, {"url": url, "type": "back"}]
    problem = create(customer, {"images": images}).json()
    assert (problem["code"], problem["pointer"]) == (code, "/images/1/url")
    assert count_rows(database) == rows


def test_a_malformed_image_is_a_violation(customer: Customer) -> None:
    images: list[dict[str, str]] = [
        {"url": "data:text/html;base64,AAAA", "type": "back"},
        {"url": data_url(BACK), "type": "cover"},
        {"url": data_url(BACK)},
    ]
    response = create(customer, {"images": images})
    assert response.status == 422
    assert [violation["loc"] for violation in response.json()["detail"]] == [
        ["body", "images", 0, "url"],
        ["body", "images", 1, "type"],
        ["body", "images", 2, "type"],
    ]
    too_many = create(customer, {"images": [{"url": data_url(BACK), "type": "side"}] * 21})
    assert too_many.json()["detail"][0]["type"] == "too_long"


def test_an_idempotency_key_creates_one_product_with_its_images(
    customer: Customer, database: Database
) -> None:
    body = {"images": [{"url": data_url(PHOTO), "type": "primary"}]}
    key = {"Idempotency-Key": "product-with-image"}
    failed = create(customer, {"images": [{"url": data_url(b"no image"), "type": "primary"}]}, **key)
    assert failed.status == 409
    first, again = create(customer, body, **key), create(customer, body, **key)
    assert (first.status, again.status, again.json()) == (201, 201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert count_rows(database)[0] == 1
    other = create(customer, {"images": [{"url": data_url(BACK), "type": "primary"}]}, **key)
    assert status_and_code(other) == (422, "idempotency_key_reused")


def test_a_body_can_have_fifteen_megabytes(customer: Customer) -> None:
    body = json.dumps({"name": "Dress", "cover_image": data_url(BACK)}).encode()
    path, headers = f"/products/{customer.organization_query}", {"content-type": "application/json"}
    full = customer.client("POST", path, body=body.ljust(15_000_000), headers=headers)
    assert full.status == 201, full.body
    larger = customer.client("POST", path, body=body.ljust(15_000_001), headers=headers)
    assert status_and_code(larger) == (413, "too_large")
    brand = customer.client("POST", "/brands/", body=b'{"name": "A"}'.ljust(1_000_001), headers=headers)
    assert status_and_code(brand) == (413, "too_large")


def test_a_primary_image_becomes_the_cover_of_a_product_without_one(customer: Customer) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    media = create(customer, {"cover_image": data_url(PHOTO)}).json()["cover_image"]
    path = f"/products/{product['id']}"
    for type_, cover in (("front", None), ("primary", media)):
        added = customer.client("POST", f"{path}/images/from-url", {"file_url": media, "type": type_})
        assert added.status == 201, added.body
        assert customer.client("GET", path).json()["cover_image"] == cover
