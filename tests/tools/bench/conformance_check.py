"""The one check that every contender passes before it is timed: the same contract, seen over HTTP alone.

It holds for ours as for the peers, so it asks for no more than the peers promise. Its rows are of the last
organization that is asked.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.tools.bench.operations import (
    BASE_PATH,
    INVALID,
    VALID,
    Request,
    fetch,
    list_path,
    reader_organizations,
)
from tests.tools.bench.rows import Scale, build_token, organization_id

PRODUCT_FIELDS = {
    "id", "created_at", "updated_at", "owner_id", "organization_id", "sku", "name", "description", "category",
    "gender", "materials", "color", "brand_id", "cover_image", "images", "state", "public",
}  # fmt: skip
IMAGE_FIELDS = {"id", "created_at", "updated_at", "url", "type", "width", "height"}
PROBLEM_MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class ContractClient:
    """Who asks, and where."""

    client: httpx.Client
    scale: Scale

    @property
    def organization(self) -> int:
        """The organization that is asked for."""
        return reader_organizations()[-1]

    def get(self, path: str, status: int = 200, token: str | None = None, tag: str = "") -> httpx.Response:
        """Ask as the owner."""
        return fetch(
            self.client, Request("GET", path, token or build_token(self.organization), tag=tag), status
        )

    def page(self, **parameters: object) -> dict[str, Any]:
        """Return a page of the owner's products."""
        page: dict[str, Any] = self.get(list_path(self.organization, **parameters)).json()
        return page

    def create(self, status: int = 201, token: str | None = None, **body: object) -> httpx.Response:
        """Make a product as the owner."""
        request = Request(
            "POST", list_path(self.organization), token or build_token(self.organization), json.dumps(body)
        )
        return fetch(self.client, request, status)

    def update(self, location: str, tag: str, status: int = 200, **body: object) -> httpx.Response:
        """Change a product as the owner."""
        request = Request("PATCH", location, build_token(self.organization), json.dumps(body), tag)
        return fetch(self.client, request, status)


def _parse_problem(answer: httpx.Response, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == PROBLEM_MEDIA_TYPE
    assert (problem["status"], problem["code"]) == (answer.status_code, code), problem
    return problem


def invalid_tokens_are_rejected(client: ContractClient) -> None:
    """A missing, a forged, and an old one."""
    path = f"{BASE_PATH}{client.scale.product_id(1, 1)}"
    assert client.client.get(path).status_code == 401
    client.get(path, 401, build_token(1, secret="another secret that is long enough for the algorithm"))
    client.get(path, 401, build_token(1, age=24 * 3600))


def a_product_is_returned_in_full(client: ContractClient) -> None:
    """With its cover and its photograph."""
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
    """For reading, listing and changing, as what does not exist."""
    foreign = f"{BASE_PATH}{client.scale.product_id(client.organization - 1, 1)}"
    _parse_problem(client.get(foreign, 404), "not_found")
    _parse_problem(client.get(f"{BASE_PATH}{uuid.UUID(int=7)}", 404), "not_found")
    client.update(foreign, "*", 404, color="red")
    client.get(list_path(client.organization - 1), 404)
    _parse_problem(client.get(f"{BASE_PATH}not-an-id", 422), "invalid_request")


def lists_paginate_by_cursor_and_by_skip(client: ContractClient) -> None:
    """Newest first, each row once, counted exactly."""
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
    """And what is out of them is named."""
    for parameters in ({"limit": 0}, {"limit": 101}, {"skip": -1}):
        problem = _parse_problem(
            client.get(list_path(client.organization, **parameters), 422), "invalid_request"
        )
        (name,) = parameters
        assert [violation["loc"] for violation in problem["detail"]] == [["query", name]]


def a_product_can_be_created(client: ContractClient) -> None:
    """With a place where it is found, and not by who only reads, nor twice with one SKU."""
    made = client.create(**VALID, sku="CHECK-1")
    product = made.json()
    assert set(product) == PRODUCT_FIELDS
    assert {name: product[name] for name in VALID} == VALID
    assert (product["state"], product["images"], product["cover_image"]) == ("READY", [], None)
    found = client.get(made.headers["location"])
    assert (found.json(), found.headers["etag"]) == (product, made.headers["etag"])
    assert client.page(limit=1)["data"] == [product]
    assert client.page(limit=1)["count"] == client.scale.products + 1
    _parse_problem(client.create(409, **VALID, sku="CHECK-1"), "sku_taken")
    viewer, of_viewer = build_token(client.scale.viewer), list_path(1)
    refused = fetch(client.client, Request("POST", of_viewer, viewer, json.dumps(VALID)), 403)
    _parse_problem(refused, "not_enough_permissions")
    assert client.get(of_viewer, token=viewer).json()["count"] == client.scale.products


def invalid_bodies_are_rejected_with_every_error(client: ContractClient) -> None:
    """All of it at once."""
    before = client.page(limit=1)
    problem = _parse_problem(client.create(422, **INVALID), "invalid_request")
    named = sorted(violation["loc"] for violation in problem["detail"])
    assert named == sorted(["body", name] for name in INVALID)
    assert all(violation["msg"] and violation["type"] for violation in problem["detail"])
    assert client.page(limit=1) == before


def updates_require_the_current_etag(client: ContractClient) -> None:
    """Who saw an older one is told so, and changes nothing."""
    made = client.create(**VALID)
    location, tag = made.headers["location"], made.headers["etag"]
    changed = client.update(location, tag, color="sand", materials=None)
    expected = {**made.json(), "color": "sand", "materials": None}
    assert {**changed.json(), "updated_at": made.json()["updated_at"]} == expected
    assert changed.json()["updated_at"] > made.json()["updated_at"]
    assert changed.headers["etag"] != tag
    _parse_problem(client.update(location, tag, 412, color="red"), "precondition_failed")
    assert client.get(location).json() == changed.json()
    client.update(location, changed.headers["etag"], 422, name="")


def unchanged_products_are_not_modified(client: ContractClient) -> None:
    """Without a body, until it changes."""
    location = client.create(**VALID).headers["location"]
    tag = client.get(location).headers["etag"]
    known = client.get(location, 304, tag=tag)
    assert (known.content, known.headers["etag"]) == (b"", tag)
    client.update(location, tag, color="red")
    assert client.get(location, tag=tag).json()["color"] == "red"


CHECKS: tuple[Callable[[ContractClient], None], ...] = (
    invalid_tokens_are_rejected,
    a_product_is_returned_in_full,
    products_of_other_tenants_are_not_found,
    lists_paginate_by_cursor_and_by_skip,
    page_parameters_are_bounded,
    a_product_can_be_created,
    invalid_bodies_are_rejected_with_every_error,
    updates_require_the_current_etag,
    unchanged_products_are_not_modified,
)


def find_failures(client: httpx.Client, scale: Scale) -> Iterator[str]:
    """Give what a server does otherwise than the contract says, by the sentence that does not hold."""
    visit = ContractClient(client, scale)
    for check in CHECKS:
        try:
            check(visit)
        except (AssertionError, LookupError, httpx.HTTPError, RuntimeError, ValueError) as error:
            yield f"{check.__name__.replace('_', ' ')}: {error!r}"
