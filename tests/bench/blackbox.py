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

from tests.bench.operations import BASE_PATH, INVALID, VALID, Request, askers, fetch, list_path
from tests.bench.rows import Scale, organization_id, token_of

OF_A_PRODUCT = {
    "id", "created_at", "updated_at", "owner_id", "organization_id", "sku", "name", "description", "category",
    "gender", "materials", "color", "brand_id", "cover_image", "images", "state", "public",
}  # fmt: skip
OF_AN_IMAGE = {"id", "created_at", "updated_at", "url", "type", "width", "height"}
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Visit:
    """Who asks, and where."""

    client: httpx.Client
    scale: Scale

    @property
    def mine(self) -> int:
        """The organization that is asked for."""
        return askers()[-1]

    def get(self, path: str, status: int = 200, token: str | None = None, tag: str = "") -> httpx.Response:
        """Ask as the owner."""
        return fetch(self.client, Request("GET", path, token or token_of(self.mine), tag=tag), status)

    def page(self, **parameters: object) -> dict[str, Any]:
        """Return a page of the owner's products."""
        page: dict[str, Any] = self.get(list_path(self.mine, **parameters)).json()
        return page

    def create(self, status: int = 201, token: str | None = None, **body: object) -> httpx.Response:
        """Make a product as the owner."""
        request = Request("POST", list_path(self.mine), token or token_of(self.mine), json.dumps(body))
        return fetch(self.client, request, status)

    def change(self, location: str, tag: str, status: int = 200, **body: object) -> httpx.Response:
        """Change a product as the owner."""
        request = Request("PATCH", location, token_of(self.mine), json.dumps(body), tag)
        return fetch(self.client, request, status)


def _problem(answer: httpx.Response, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == PROBLEM
    assert (problem["status"], problem["code"]) == (answer.status_code, code), problem
    return problem


def who_shows_no_good_token_is_refused(visit: Visit) -> None:
    """A missing, a forged, and an old one."""
    path = f"{BASE_PATH}{visit.scale.product_id(1, 1)}"
    assert visit.client.get(path).status_code == 401
    visit.get(path, 401, token_of(1, secret="another secret that is long enough for the algorithm"))
    visit.get(path, 401, token_of(1, age=24 * 3600))


def a_product_is_answered_whole(visit: Visit) -> None:
    """With its cover and its photograph."""
    product = visit.get(f"{BASE_PATH}{visit.scale.product_id(visit.mine, 3)}").json()
    assert set(product) == OF_A_PRODUCT
    assert product["id"] == str(visit.scale.product_id(visit.mine, 3))
    assert product["organization_id"] == str(organization_id(visit.mine))
    assert (product["name"].startswith("Linen wrap dress"), product["gender"]) == (True, "FEMALE")
    assert (product["state"], product["public"], product["brand_id"]) == ("READY", False, None)
    (image,) = product["images"]
    assert set(image) == OF_AN_IMAGE
    assert (image["type"], image["width"], image["height"]) == ("front", 1200, 1600)
    assert image["url"] == product["cover_image"]
    assert image["created_at"].endswith("Z")


def what_is_of_others_is_not_there(visit: Visit) -> None:
    """For reading, listing and changing, as what does not exist."""
    foreign = f"{BASE_PATH}{visit.scale.product_id(visit.mine - 1, 1)}"
    _problem(visit.get(foreign, 404), "not_found")
    _problem(visit.get(f"{BASE_PATH}{uuid.UUID(int=7)}", 404), "not_found")
    visit.change(foreign, "*", 404, color="red")
    visit.get(list_path(visit.mine - 1), 404)
    _problem(visit.get(f"{BASE_PATH}not-an-id", 422), "invalid_request")


def a_list_is_walked_by_cursor_and_by_skip(visit: Visit) -> None:
    """Newest first, each row once, counted exactly."""
    first, both = visit.page(limit=20), visit.page(limit=40)
    assert set(first) == {"data", "count", "count_exact", "next_cursor"}
    assert (first["count"], first["count_exact"]) == (visit.scale.products, True)
    assert all(set(product) == OF_A_PRODUCT for product in first["data"])
    places = range(visit.scale.products, visit.scale.products - 40, -1)
    expected = [str(visit.scale.product_id(visit.mine, place)) for place in places]
    assert [product["id"] for product in both["data"]] == expected
    assert first["data"] == both["data"][:20]
    assert visit.page(limit=20, cursor=first["next_cursor"])["data"] == both["data"][20:]
    assert visit.page(limit=20, skip=20)["data"] == both["data"][20:]
    last = visit.page(limit=20, skip=visit.scale.products - 5)
    assert (len(last["data"]), last["next_cursor"]) == (5, None)


def pages_have_bounds(visit: Visit) -> None:
    """And what is out of them is named."""
    for parameters in ({"limit": 0}, {"limit": 101}, {"skip": -1}):
        problem = _problem(visit.get(list_path(visit.mine, **parameters), 422), "invalid_request")
        (name,) = parameters
        assert [violation["loc"] for violation in problem["detail"]] == [["query", name]]


def a_product_is_made(visit: Visit) -> None:
    """With a place where it is found, and not by who only reads, nor twice with one SKU."""
    made = visit.create(**VALID, sku="CHECK-1")
    product = made.json()
    assert set(product) == OF_A_PRODUCT
    assert {name: product[name] for name in VALID} == VALID
    assert (product["state"], product["images"], product["cover_image"]) == ("READY", [], None)
    found = visit.get(made.headers["location"])
    assert (found.json(), found.headers["etag"]) == (product, made.headers["etag"])
    assert visit.page(limit=1)["data"] == [product]
    assert visit.page(limit=1)["count"] == visit.scale.products + 1
    _problem(visit.create(409, **VALID, sku="CHECK-1"), "sku_taken")
    viewer, of_viewer = token_of(visit.scale.viewer), list_path(1)
    refused = fetch(visit.client, Request("POST", of_viewer, viewer, json.dumps(VALID)), 403)
    _problem(refused, "not_enough_permissions")
    assert visit.get(of_viewer, token=viewer).json()["count"] == visit.scale.products


def what_is_invalid_is_named_and_nothing_is_made(visit: Visit) -> None:
    """All of it at once."""
    before = visit.page(limit=1)
    problem = _problem(visit.create(422, **INVALID), "invalid_request")
    named = sorted(violation["loc"] for violation in problem["detail"])
    assert named == sorted(["body", name] for name in INVALID)
    assert all(violation["msg"] and violation["type"] for violation in problem["detail"])
    assert visit.page(limit=1) == before


def a_change_needs_the_latest_state(visit: Visit) -> None:
    """Who saw an older one is told so, and changes nothing."""
    made = visit.create(**VALID)
    location, tag = made.headers["location"], made.headers["etag"]
    changed = visit.change(location, tag, color="sand", materials=None)
    expected = {**made.json(), "color": "sand", "materials": None}
    assert {**changed.json(), "updated_at": made.json()["updated_at"]} == expected
    assert changed.json()["updated_at"] > made.json()["updated_at"]
    assert changed.headers["etag"] != tag
    _problem(visit.change(location, tag, 412, color="red"), "precondition_failed")
    assert visit.get(location).json() == changed.json()
    visit.change(location, changed.headers["etag"], 422, name="")


def who_has_the_latest_state_is_told_so(visit: Visit) -> None:
    """Without a body, until it changes."""
    location = visit.create(**VALID).headers["location"]
    tag = visit.get(location).headers["etag"]
    known = visit.get(location, 304, tag=tag)
    assert (known.content, known.headers["etag"]) == (b"", tag)
    visit.change(location, tag, color="red")
    assert visit.get(location, tag=tag).json()["color"] == "red"


CHECKS: tuple[Callable[[Visit], None], ...] = (
    who_shows_no_good_token_is_refused,
    a_product_is_answered_whole,
    what_is_of_others_is_not_there,
    a_list_is_walked_by_cursor_and_by_skip,
    pages_have_bounds,
    a_product_is_made,
    what_is_invalid_is_named_and_nothing_is_made,
    a_change_needs_the_latest_state,
    who_has_the_latest_state_is_told_so,
)


def failures(client: httpx.Client, scale: Scale) -> Iterator[str]:
    """Give what a server does otherwise than the contract says, by the sentence that does not hold."""
    visit = Visit(client, scale)
    for check in CHECKS:
        try:
            check(visit)
        except (AssertionError, LookupError, httpx.HTTPError, RuntimeError, ValueError) as error:
            yield f"{check.__name__.replace('_', ' ')}: {error!r}"
