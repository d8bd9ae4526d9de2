"""Check over HTTP that a server conforms to the contract. Each server must pass before it is measured.

The check is the same for this server and its peers, so it covers only what the peers implement. Its rows
belong to the last of the organizations that receive requests.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import httpx

from tools.bench.operations import (
    BASE_PATH,
    BATCH,
    INVALID,
    VALID,
    Request,
    batch_requests,
    fetch,
    list_path,
    published_image_requests,
    reader_organizations,
)
from tools.bench.rows import PUBLISHED_BYTES, Scale, build_token, organization_id

PRODUCT_FIELDS = {
    "id", "created_at", "updated_at", "owner_id", "organization_id", "sku", "name", "description", "category",
    "gender", "materials", "color", "brand_id", "cover_image", "images", "state", "public",
    "external_id", "metadata",
}  # fmt: skip
IMAGE_FIELDS = {
    "id", "created_at", "updated_at", "url", "type", "width", "height", "position", "alt_text", "region",
    "mask_url",
}  # fmt: skip
PROBLEM_MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class ContractClient:
    """A client that sends requests as the owner of one organization."""

    client: httpx.Client
    scale: Scale

    @property
    def organization(self) -> int:
        """Return the number of the organization."""
        return reader_organizations()[-1]

    def get(self, path: str, status: int = 200, token: str | None = None, tag: str = "") -> httpx.Response:
        """Send a GET request, as the owner unless a token is given."""
        return fetch(
            self.client, Request("GET", path, token or build_token(self.organization), tag=tag), status
        )

    def page(self, **parameters: object) -> dict[str, Any]:
        """Return a page of the owner's products."""
        page: dict[str, Any] = self.get(list_path(self.organization, **parameters)).json()
        return page

    def create(self, status: int = 201, token: str | None = None, **body: object) -> httpx.Response:
        """Create a product, as the owner unless a token is given."""
        request = Request(
            "POST", list_path(self.organization), token or build_token(self.organization), json.dumps(body)
        )
        return fetch(self.client, request, status)

    def update(self, location: str, tag: str, status: int = 200, **body: object) -> httpx.Response:
        """Update a product as the owner."""
        request = Request("PATCH", location, build_token(self.organization), json.dumps(body), tag)
        return fetch(self.client, request, status)


def _parse_problem(response: httpx.Response, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    assert (problem["status"], problem["code"]) == (response.status_code, code), problem
    return problem


def invalid_tokens_are_rejected(client: ContractClient) -> None:
    """Check a missing, a forged and an expired token."""
    path = f"{BASE_PATH}{client.scale.product_id(1, 1)}"
    assert client.client.get(path).status_code == 401
    client.get(path, 401, build_token(1, secret="another secret that is long enough for the algorithm"))
    client.get(path, 401, build_token(1, age=24 * 3600))


def a_product_is_returned_in_full(client: ContractClient) -> None:
    """Check all fields, with the cover image and the photo."""
    product = client.get(f"{BASE_PATH}{client.scale.product_id(client.organization, 3)}").json()
    assert set(product) == PRODUCT_FIELDS
    assert product["id"] == str(client.scale.product_id(client.organization, 3))
    assert product["organization_id"] == str(organization_id(client.organization))
    assert (product["name"].startswith("Linen wrap dress"), product["gender"]) == (True, "FEMALE")
    assert (product["state"], product["public"], product["brand_id"]) == ("READY", False, None)
    (image,) = product["images"]
    assert set(image) == IMAGE_FIELDS
    assert (image["type"], image["width"], image["height"]) == ("front", 1200, 1600)
    assert image["url"] == product["cover_image"]
    assert image["created_at"].endswith("Z")


def products_of_other_tenants_are_not_found(client: ContractClient) -> None:
    """Check that reads, lists and updates return 404, as for an unknown product."""
    foreign = f"{BASE_PATH}{client.scale.product_id(client.organization - 1, 1)}"
    _parse_problem(client.get(foreign, 404), "not_found")
    _parse_problem(client.get(f"{BASE_PATH}{uuid.UUID(int=7)}", 404), "not_found")
    client.update(foreign, "*", 404, color="red")
    client.get(list_path(client.organization - 1), 404)


def lists_paginate_by_cursor_and_by_skip(client: ContractClient) -> None:
    """Check the order (newest first), the pages (each row once) and the exact count."""
    first, both = client.page(limit=20), client.page(limit=40)
    assert set(first) == {"data", "count", "count_exact", "next_cursor"}
    assert (first["count"], first["count_exact"]) == (client.scale.products, True)
    assert all(set(product) == PRODUCT_FIELDS for product in first["data"])
    places = range(client.scale.products, client.scale.products - 40, -1)
    expected = [str(client.scale.product_id(client.organization, place)) for place in places]
    assert [product["id"] for product in both["data"]] == expected
    assert first["data"] == both["data"][:20]
    assert client.page(limit=20, cursor=first["next_cursor"])["data"] == both["data"][20:]
    assert client.page(limit=20, skip=20)["data"] == both["data"][20:]
    last = client.page(limit=20, skip=client.scale.products - 5)
    assert (len(last["data"]), last["next_cursor"]) == (5, None)


def page_parameters_are_bounded(client: ContractClient) -> None:
    """Check that an error names the parameter that is out of bounds, and that an id is a UUID."""
    _parse_problem(client.get(f"{BASE_PATH}not-an-id", 422), "invalid_request")
    for parameters in ({"limit": 0}, {"limit": 101}, {"skip": -1}):
        problem = _parse_problem(
            client.get(list_path(client.organization, **parameters), 422), "invalid_request"
        )
        (name,) = parameters
        assert [violation["loc"] for violation in problem["detail"]] == [["query", name]]


def a_product_can_be_created(client: ContractClient) -> None:
    """Check the `Location` header, and the errors for a repeated SKU and for a viewer."""
    created = client.create(**VALID, sku="CHECK-1")
    product = created.json()
    assert set(product) == PRODUCT_FIELDS
    assert {name: product[name] for name in VALID} == VALID
    assert (product["state"], product["images"], product["cover_image"]) == ("READY", [], None)
    found = client.get(created.headers["location"])
    assert (found.json(), found.headers["etag"]) == (product, created.headers["etag"])
    assert client.page(limit=1)["data"] == [product]
    assert client.page(limit=1)["count"] == client.scale.products + 1
    _parse_problem(client.create(409, **VALID, sku="CHECK-1"), "sku_taken")
    viewer_token, path = build_token(client.scale.viewer), list_path(1)
    denied = fetch(client.client, Request("POST", path, viewer_token, json.dumps(VALID)), 403)
    _parse_problem(denied, "not_enough_permissions")
    assert client.get(path, token=viewer_token).json()["count"] == client.scale.products


def invalid_bodies_are_rejected_with_every_error(client: ContractClient) -> None:
    """Check that one response names all invalid fields."""
    before = client.page(limit=1)
    problem = _parse_problem(client.create(422, **INVALID), "invalid_request")
    named = sorted(violation["loc"] for violation in problem["detail"])
    assert named == sorted(["body", name] for name in INVALID)
    assert all(violation["msg"] and violation["type"] for violation in problem["detail"])
    assert client.page(limit=1) == before
    created = client.create(**VALID)
    client.update(created.headers["location"], created.headers["etag"], 422, name="")


def updates_require_the_current_etag(client: ContractClient) -> None:
    """Check that an update with an old ETag returns 412 and changes nothing."""
    created = client.create(**VALID)
    location, tag = created.headers["location"], created.headers["etag"]
    updated = client.update(location, tag, color="sand", materials=None)
    expected = {**created.json(), "color": "sand", "materials": None}
    assert {**updated.json(), "updated_at": created.json()["updated_at"]} == expected
    assert updated.json()["updated_at"] > created.json()["updated_at"]
    assert updated.headers["etag"] != tag
    _parse_problem(client.update(location, tag, 412, color="red"), "precondition_failed")
    assert client.get(location).json() == updated.json()


def unchanged_products_are_not_modified(client: ContractClient) -> None:
    """Check that a 304 response has no body, and that an update ends it."""
    location = client.create(**VALID).headers["location"]
    tag = client.get(location).headers["etag"]
    not_modified = client.get(location, 304, tag=tag)
    assert (not_modified.content, not_modified.headers["etag"]) == (b"", tag)
    client.update(location, tag, color="red")
    assert client.get(location, tag=tag).json()["color"] == "red"


def a_key_creates_one_product(client: ContractClient) -> None:
    """Check that a repeated request gets the same product, and that another body is rejected."""
    before = client.page(limit=1)["count"]
    path, token, body = list_path(client.organization), build_token(client.organization), json.dumps(VALID)
    request = Request("POST", path, token, body, key=f"check-{uuid.uuid4().hex}")
    first, second = (fetch(client.client, request, 201) for _ in range(2))
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert client.page(limit=1)["count"] == before + 1
    other = replace(request, body=json.dumps({**VALID, "color": "red"}))
    assert client.client.post(path, content=other.body, headers=other.headers).status_code in (409, 422)
    assert client.page(limit=1)["count"] == before + 1


def a_batch_creates_products(client: ContractClient) -> None:
    """Check that each item of a batch has the product that it created."""
    before = client.page(limit=1)["count"]
    (request, *_) = batch_requests(client.client, client.scale)
    path = list_path(client.organization).replace("?", "batch?")
    answer = fetch(client.client, replace(request, path=path, token=build_token(client.organization))).json()
    assert (answer["accepted_count"], answer["refused_count"], len(answer["results"])) == (BATCH, 0, BATCH)
    assert {result["status"] for result in answer["results"]} == {201}
    assert all(set(result["body"]) == PRODUCT_FIELDS for result in answer["results"])
    names = [result["body"]["name"] for result in answer["results"]]
    assert names == [f"Linen shirt {number}" for number in range(BATCH)]
    assert client.page(limit=1)["count"] == before + BATCH


def a_published_image_is_served(client: ContractClient) -> None:
    """Check the bytes and the type of an image, and that another token is unknown."""
    (request, *_) = published_image_requests(client.client, client.scale)
    image = fetch(client.client, request)
    assert (len(image.content), image.headers["content-type"]) == (PUBLISHED_BYTES, "image/jpeg")
    assert image.headers["etag"]
    _, _, name = request.path.rpartition("/")
    fetch(client.client, replace(request, path=f"/api/v1/published/{'A' * 22}/{name}"), 404)


CHECKS: tuple[Callable[[ContractClient], None], ...] = (
    invalid_tokens_are_rejected,
    a_product_is_returned_in_full,
    products_of_other_tenants_are_not_found,
    lists_paginate_by_cursor_and_by_skip,
    a_product_can_be_created,
    updates_require_the_current_etag,
    unchanged_products_are_not_modified,
)


CHECKS_BY_OPERATION: dict[str, tuple[Callable[[ContractClient], None], ...]] = {
    "invalid": (page_parameters_are_bounded, invalid_bodies_are_rejected_with_every_error),
    "with_key": (a_key_creates_one_product,),
    "batch": (a_batch_creates_products,),
    "published": (a_published_image_is_served,),
}
"""Checks that a server need not pass if it does not have the operation."""


def find_failures(client: httpx.Client, scale: Scale, missing: Collection[str] = ()) -> Iterator[str]:
    """Yield each failed check as its name and error.

    Args:
        missing: The names of the operations that the server does not have.
    """
    contract_client = ContractClient(client, scale)
    of_operations = [checks for name, checks in CHECKS_BY_OPERATION.items() if name not in missing]
    for check in chain(CHECKS, *of_operations):
        try:
            check(contract_client)
        except (AssertionError, LookupError, httpx.HTTPError, RuntimeError, ValueError) as error:
            yield f"{check.__name__.replace('_', ' ')}: {error!r}"
