"""What is asked: each operation as requests of 50 accounts, made ready so that asking costs nothing.

Places that only the server names, cursors and tags, are fetched from the server that will be asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx

from tests.bench.rows import ASKED, Scale, organization_id, token_of

BASE_PATH = "/api/v1/products/"
DEEP = 100
"""A deep page begins at this place, counted from the end of the organization's list."""
PRODUCTS_EACH = 6
COUNTER = "{n}"
"""Stands in a body where each request has a number of its own."""
VALID = {
    "name": f"Linen shirt {COUNTER}",
    "description": "A shirt of washed linen.",
    "category": "shirts",
    "gender": "UNISEX",
    "materials": "100% linen",
    "color": "indigo",
}
INVALID = {"name": "", "gender": "NONE", "sku": 7, "colour": "indigo"}


@dataclass(frozen=True)
class Request:
    """One request; `tag` goes into If-None-Match, for a change into If-Match."""

    method: str
    path: str
    token: str
    body: str = ""
    tag: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What it says beside its body."""
        headers = {"Authorization": f"Bearer {self.token}"}
        if self.body:
            headers["Content-Type"] = "application/json"
        if self.tag:
            headers["If-None-Match" if self.method == "GET" else "If-Match"] = self.tag
        return headers


@dataclass(frozen=True)
class Operation:
    """One thing that is measured, and with what it is answered."""

    name: str
    title: str
    status: int
    requests: Callable[[httpx.Client, Scale], list[Request]]
    feeds_back: bool = False
    """Whether a request needs what the answer to an earlier one told."""


class Unexpected(RuntimeError):
    """A server answered otherwise than the operation wants."""


def fetch(client: httpx.Client, request: Request, status: int = 200) -> httpx.Response:
    """Return the answer to one request; Unexpected for another status."""
    content = request.body or None
    answer = client.request(request.method, request.path, headers=request.headers, content=content)
    if answer.status_code != status:
        told = f"{answer.status_code} {answer.text[:500]}"
        raise Unexpected(f"{request.method} {request.path} was answered {told}, not {status}")
    return answer


def askers() -> range:
    """Return the numbers of the organizations that are asked, and of their owners."""
    return range(1, ASKED + 1)


def makers() -> range:
    """Return the organizations in which products are made: others, so that no measured list grows."""
    return range(ASKED + 1, 2 * ASKED + 1)


def list_path(organization: int, **parameters: object) -> str:
    """Return the address of a page of an organization's products."""
    query = "".join(f"&{name}={value}" for name, value in parameters.items())
    return f"{BASE_PATH}?organization_id={organization_id(organization)}{query}"


def _reads(scale: Scale, first_place: int = 1) -> list[Request]:
    places = range(first_place, first_place + PRODUCTS_EACH)
    return [
        Request("GET", f"{BASE_PATH}{scale.product_id(one, place)}", token_of(one))
        for place in places
        for one in askers()
    ]


def read(_client: httpx.Client, scale: Scale) -> list[Request]:
    """Return requests for one product each."""
    return _reads(scale)


def read_again(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return the same with the tags that the server gave."""
    return [replace(each, tag=fetch(client, each).headers["etag"]) for each in _reads(scale)]


def change(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return changes of products that the others leave alone, with the tags that the server gave."""
    body = json.dumps({"color": f"sand {COUNTER}"})
    return [
        replace(each, tag=fetch(client, each).headers["etag"], method="PATCH", body=body)
        for each in _reads(scale, 1 + PRODUCTS_EACH)
    ]


def first_page(limit: int) -> Callable[[httpx.Client, Scale], list[Request]]:
    """Return what makes requests for the first page."""
    return lambda _, scale: [Request("GET", list_path(one, limit=limit), token_of(one)) for one in askers()]


def deep_by_skip(_client: httpx.Client, scale: Scale) -> list[Request]:
    """Return requests for 100 products near the end of the list, by how many are left out."""
    skip = scale.products - 2 * DEEP
    return [Request("GET", list_path(one, limit=DEEP, skip=skip), token_of(one)) for one in askers()]


def deep_by_cursor(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return requests for the same 100 products, by the cursor that the page before gave."""
    before = scale.products - 3 * DEEP
    found = []
    for one in askers():
        page = fetch(client, Request("GET", list_path(one, limit=DEEP, skip=before), token_of(one)))
        path = list_path(one, limit=DEEP, cursor=page.json()["next_cursor"])
        found.append(Request("GET", path, token_of(one)))
    return found


def creation(body: dict[str, object]) -> Callable[[httpx.Client, Scale], list[Request]]:
    """Return what makes requests for a new product."""
    text = json.dumps(body)
    return lambda _, scale: [Request("POST", list_path(one), token_of(one), text) for one in makers()]


def of_everybody(_client: httpx.Client, scale: Scale) -> list[Request]:
    """Return a request for the newest of all products there are, as only a superuser sees them."""
    return [Request("GET", f"{BASE_PATH}?limit={DEEP}", token_of(scale.superuser))]


def of_everybody_deep(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return a request for the oldest of all products, by cursor."""
    (first,) = of_everybody(client, scale)
    page = fetch(client, replace(first, path=f"{first.path}&skip={scale.rows - 2 * DEEP}"))
    return [replace(first, path=f"{first.path}&cursor={page.json()['next_cursor']}")]


OPERATIONS = (
    Operation("read", "read one product", 200, read),
    Operation("not_modified", "read one that did not change (304)", 304, read_again),
    Operation("list_20", "list 20", 200, first_page(20)),
    Operation("list_100", "list 100", 200, first_page(100)),
    Operation("skip_100", "list 100, deep, by `skip`", 200, deep_by_skip),
    Operation("cursor_100", "list 100, deep, by `cursor`", 200, deep_by_cursor),
    Operation("update", "update with If-Match", 200, change, feeds_back=True),
    Operation("create", "create", 201, creation(dict(VALID))),
    Operation("invalid", "create what is invalid (422)", 422, creation(dict(INVALID))),
)

# Of ours alone: it is asked whether the depth of a page costs, not how fast others are.
OF_OURS = (
    Operation("everybody", "list 100 of all rows", 200, of_everybody),
    Operation("everybody_deep", "the last 100 of all rows, by `cursor`", 200, of_everybody_deep),
)

NAMED = {operation.name: operation for operation in (*OPERATIONS, *OF_OURS)}
