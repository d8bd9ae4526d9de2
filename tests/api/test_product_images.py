"""Photos of products through the API: their order, what a person chose to cut out, and cut-outs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from db.session import Database
from studio.cutouts.requests import UnusableCutoutInputs
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.cutouts import box_of, build_mask, make_cutouts
from tests.support.factories.catalog import Customer, post_form
from tests.support.sample_media import build_orientation_image, encode_image, open_image

PHOTO = encode_image(build_orientation_image(120, 80), "JPEG")
REGION = box_of(0.1, 0.2, 0.5, 0.6)


@pytest.fixture
def image_path(customer: Customer) -> str:
    """Return the path of the only photo of a new product."""
    product = customer.create("/products/", {"name": "Dress"})
    return add_photo(customer, product["id"])


def add_photo(customer: Customer, product_id: str, file: bytes = PHOTO, type_: str = "front") -> str:
    """Add a photo to a product and return its path."""
    response = post_form(customer.client, f"/products/{product_id}/images", file, type=type_)
    assert response.status == 201, response.body
    return response.headers["location"].removeprefix("/api/v1")


def upload(client: Client, content: bytes, media_type: str = "image/png") -> str:
    """Upload a file and return its URL."""
    announced = client(
        "POST",
        "/uploads/presigned-url",
        {"filename": "mask.png", "content_type": media_type, "size": len(content)},
    ).json()
    path = announced["upload_url"].split("/api/v1")[1]
    assert client("PUT", path, body=content, headers={"content-type": media_type}).status == 204
    return str(announced["file_url"])


def patch(customer: Customer, path: str, **changes: Any) -> dict[str, Any]:
    """Change a photo and return it."""
    response = customer.client("PATCH", path, changes)
    assert response.status == 200, response.body
    image: dict[str, Any] = response.json()
    return image


def list_positions(customer: Customer, product_id: str) -> list[tuple[str, int]]:
    """Return type and position of the photos in the order in which the product shows them."""
    images = customer.client("GET", f"/products/{product_id}").json()["images"]
    return [(image["type"], image["position"]) for image in images]


def test_a_new_photo_is_the_last_one_and_has_no_region_mask_or_alternative_text(customer: Customer) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    paths = [add_photo(customer, product["id"], type_=type_) for type_ in ("primary", "back", "detail")]
    assert list_positions(customer, product["id"]) == [("primary", 1), ("back", 2), ("detail", 3)]
    image = customer.client("GET", paths[0]).json()
    assert {name: image[name] for name in ("alt_text", "region", "mask_url")} == {
        "alt_text": None,
        "region": None,
        "mask_url": None,
    }
    listed = customer.client("GET", f"/products/{product['id']}/images").json()["data"]
    assert image in listed


def test_moving_a_photo_shifts_the_photos_between(customer: Customer) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    paths = {
        type_: add_photo(customer, product["id"], type_=type_)
        for type_ in ("primary", "front", "back", "side")
    }
    assert patch(customer, paths["side"], position=2)["position"] == 2
    assert list_positions(customer, product["id"]) == [
        ("primary", 1), ("side", 2), ("front", 3), ("back", 4),
    ]  # fmt: skip
    # After the last one is the last one.
    assert patch(customer, paths["primary"], position=100)["position"] == 4
    assert list_positions(customer, product["id"]) == [
        ("side", 1), ("front", 2), ("back", 3), ("primary", 4),
    ]  # fmt: skip
    assert customer.client("DELETE", paths["front"]).status == 204
    assert list_positions(customer, product["id"]) == [("side", 1), ("back", 2), ("primary", 3)]


def test_photos_of_a_new_product_have_the_order_of_the_request(customer: Customer) -> None:
    url = upload(customer.client, PHOTO, "image/jpeg")
    images = [{"url": url, "type": type_} for type_ in ("back", "primary")]
    product = customer.create("/products/", {"name": "Dress", "images": images})
    assert list_positions(customer, product["id"]) == [("back", 1), ("primary", 2)]


def test_a_change_is_visible_and_has_an_etag(customer: Customer, image_path: str) -> None:
    before = customer.client("GET", image_path)
    changed = customer.client(
        "PATCH",
        image_path,
        {"type": "back", "alt_text": "The back", "region": REGION},
        headers={"if-match": before.headers["etag"]},
    )
    image = changed.json()
    assert image == before.json() | {
        "type": "back",
        "alt_text": "The back",
        "region": REGION,
        "updated_at": image["updated_at"],
    }
    read = customer.client("GET", image_path)
    assert (read.json(), read.headers["etag"]) == (image, changed.headers["etag"])
    stale = customer.client(
        "PATCH", image_path, {"alt_text": None}, headers={"if-match": before.headers["etag"]}
    )
    assert status_and_code(stale) == (412, "precondition_failed")
    assert patch(customer, image_path, alt_text=None, region=None)["region"] is None


def test_a_region_ends_inside_the_image(customer: Customer, image_path: str) -> None:
    response = customer.client("PATCH", image_path, {"region": box_of(0.5, 0, 0.6, 1)})
    assert status_and_code(response) == (409, "region_outside_image")
    assert response.json()["pointer"] == "/region"
    # 0.3 + 0.7 is larger than 1 in floating-point numbers of some sums.
    assert patch(customer, image_path, region=box_of(0.1 + 0.2, 0, 0.7, 1))["region"]["width"] == 0.7


def test_a_mask_is_an_upload_with_the_proportions_of_the_photo(customer: Customer, image_path: str) -> None:
    image = patch(customer, image_path, mask_url=upload(customer.client, build_mask(60, 40, (9, 9, 30, 30))))
    mask = customer.client("GET", image["mask_url"].split("/api/v1")[1])
    assert open_image(mask.body).size == (60, 40)
    other = upload(customer.client, build_mask(40, 60, (9, 9, 30, 30)))
    response = customer.client("PATCH", image_path, {"mask_url": other})
    assert status_and_code(response) == (409, "image_not_usable")
    assert "120 x 80" in response.json()["detail"]
    assert customer.client("GET", image_path).json() == image
    assert patch(customer, image_path, mask_url=None)["mask_url"] is None


def test_a_primary_photo_becomes_the_cover_of_a_product_without_one(
    customer: Customer, image_path: str
) -> None:
    product_path = image_path.rsplit("/images/", 1)[0]
    assert customer.client("GET", product_path).json()["cover_image"] is None
    image = patch(customer, image_path, type="primary")
    assert customer.client("GET", product_path).json()["cover_image"] == image["url"]


def test_the_cutout_is_pending_until_a_worker_has_made_it(
    customer: Customer, image_path: str, database: Database, storage: LocalDisk
) -> None:
    pending = customer.client("GET", f"{image_path}/cutout")
    assert status_and_code(pending) == (409, "cutout_pending")
    assert pending.headers["retry-after"] == "2"
    assert make_cutouts(database, storage) == 1
    response = customer.client("GET", f"{image_path}/cutout")
    cutout = response.json()
    assert cutout == {
        "url": cutout["url"],
        "width": 8,
        "height": 6,
        "box": box_of(0.25, 0.5, 0.5, 0.25),
        "confidence": 0.91,
        "warnings": ["touches_edge"],
        "method": "u2netp",
        "created_at": cutout["created_at"],
    }
    file = customer.client("GET", cutout["url"].split("/api/v1")[1])
    assert open_image(file.body).mode == "RGBA"
    again = customer.client(
        "GET", f"{image_path}/cutout", headers={"if-none-match": response.headers["etag"]}
    )
    assert again.status == 304
    assert make_cutouts(database, storage) == 0


def test_a_cutout_is_made_again_only_after_a_change_of_region_or_mask(
    customer: Customer, image_path: str, database: Database, storage: LocalDisk
) -> None:
    make_cutouts(database, storage)
    first = customer.client("GET", f"{image_path}/cutout").json()
    patch(customer, image_path, type="side", alt_text="Side", position=1, region=None, mask_url=None)
    assert customer.client("GET", f"{image_path}/cutout").json() == first
    for change in (
        {"region": REGION},
        {"mask_url": upload(customer.client, build_mask(120, 80, (1, 1, 50, 50)))},
        {"region": None},
    ):
        patch(customer, image_path, **change)
        pending = customer.client("GET", f"{image_path}/cutout")
        assert status_and_code(pending) == (409, "cutout_pending")
        assert make_cutouts(database, storage) == 1
        assert customer.client("GET", f"{image_path}/cutout").json()["url"] != first["url"]
    patch(customer, image_path, mask_url=None)
    make_cutouts(database, storage)
    # The same inputs give the same image, which is stored once.
    assert customer.client("GET", f"{image_path}/cutout").json()["url"] == first["url"]


def test_a_cutout_that_cannot_be_made_has_failed_until_the_photo_changes(
    customer: Customer, image_path: str, database: Database, storage: LocalDisk
) -> None:
    def fail(*_: object) -> Any:
        raise UnusableCutoutInputs

    assert make_cutouts(database, storage, fail) == 1
    failed = customer.client("GET", f"{image_path}/cutout")
    assert status_and_code(failed) == (409, "cutout_failed")
    assert "retry-after" not in failed.headers
    patch(customer, image_path, region=None)
    assert make_cutouts(database, storage) == 1
    assert customer.client("GET", f"{image_path}/cutout").status == 200


def test_photo_and_cutout_of_a_public_product_are_public_and_cannot_be_changed_by_others(
    customer: Customer,
    superuser: Client,
    image_path: str,
    client_for: Callable[..., Client],
    database: Database,
    storage: LocalDisk,
) -> None:
    other = client_for(factories.make_user())
    make_cutouts(database, storage)
    product_path = image_path.rsplit("/images/", 1)[0]
    assert status_and_code(other("GET", f"{image_path}/cutout")) == (404, "not_found")
    assert superuser("PATCH", product_path, {"public": True}).status == 200

    def read_files() -> set[int]:
        mask_url = customer.client("GET", image_path).json()["mask_url"]
        cutout = customer.client("GET", f"{image_path}/cutout").json()
        urls = [cutout["url"], *([mask_url] if mask_url else [])]
        return {other("GET", url.split("/api/v1")[1]).status for url in urls}

    assert read_files() == {200}
    assert other("GET", f"{image_path}/cutout").status == 200
    assert other("PATCH", image_path, {"alt_text": "Mine"}).status == 403
    patch(customer, image_path, mask_url=upload(customer.client, build_mask(120, 80, (1, 1, 50, 50))))
    make_cutouts(database, storage)
    assert read_files() == {200}
    assert superuser("PATCH", product_path, {"public": False}).status == 200
    assert read_files() == {404}


def test_a_deleted_photo_takes_its_cutout_with_it(
    customer: Customer, image_path: str, database: Database, storage: LocalDisk
) -> None:
    make_cutouts(database, storage)
    assert customer.client("DELETE", image_path).status == 204
    assert status_and_code(customer.client("GET", f"{image_path}/cutout")) == (404, "not_found")
    product_path = add_photo(customer, image_path.split("/")[2]).rsplit("/images/", 1)[0]
    assert customer.client("DELETE", product_path).status == 204
    assert make_cutouts(database, storage) == 0
