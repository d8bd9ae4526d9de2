"""What is asked: each operation as requests of 50 accounts, made ready so that asking costs nothing.

Places that only the server names, cursors and tags, are fetched from the server that will be asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx

from tests.tools.bench.rows import ACTIVE_ORGANIZATIONS, Scale, build_token, organization_id

BASE_PATH = "/api/v1/products/"
DEEP = 100
"""A deep page begins at this place, counted from the end of the organization's list."""
PRODUCTS_PER_ORGANIZATION = 6
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
    changes_etag: bool = False
    """Whether a request needs what the answer to an earlier one told."""


class UnexpectedResponse(RuntimeError):
    """A server answered otherwise than the operation wants."""


def fetch(client: httpx.Client, request: Request, status: int = 200) -> httpx.Response:
    """Return the answer to one request; Unexpected for another status."""
    content = request.body or None
    answer = client.request(request.method, request.path, headers=request.headers, content=content)
    if answer.status_code != status:
        told = f"{answer.status_code} {answer.text[:500]}"
        raise UnexpectedResponse(f"{request.method} {request.path} was answered {told}, not {status}")
    return answer


def reader_organizations() -> range:
    """Return the numbers of the organizations that are asked, and of their owners."""
    return range(1, ACTIVE_ORGANIZATIONS + 1)


def writer_organizations() -> range:
    """Return the organizations in which products are made: others, so that no measured list grows."""
    return range(ACTIVE_ORGANIZATIONS + 1, 2 * ACTIVE_ORGANIZATIONS + 1)


def list_path(organization: int, **parameters: object) -> str:
    """Return the address of a page of an organization's products."""
    query = "".join(f"&{name}={value}" for name, value in parameters.items())
    return f"{BASE_PATH}?organization_id={organization_id(organization)}{query}"


def _read_requests(scale: Scale, first_place: int = 1) -> list[Request]:
    places = range(first_place, first_place + PRODUCTS_PER_ORGANIZATION)
    return [
        Request("GET", f"{BASE_PATH}{scale.product_id(one, place)}", build_token(one))
        for place in places
        for one in reader_organizations()
    ]


def read_requests(_client: httpx.Client, scale: Scale) -> list[Request]:
    """Return requests for one product each."""
    return _read_requests(scale)


def conditional_read_requests(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return the same with the tags that the server gave."""
    return [replace(each, tag=fetch(client, each).headers["etag"]) for each in _read_requests(scale)]


def update_requests(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return changes of products that the others leave alone, with the tags that the server gave."""
    body = json.dumps({"color": f"sand {COUNTER}"})
    return [
        replace(each, tag=fetch(client, each).headers["etag"], method="PATCH", body=body)
        for each in _read_requests(scale, 1 + PRODUCTS_PER_ORGANIZATION)
    ]


def first_page_requests(limit: int) -> Callable[[httpx.Client, Scale], list[Request]]:
    """Return what makes requests for the first page."""
    return lambda _, scale: [
        Request("GET", list_path(one, limit=limit), build_token(one)) for one in reader_organizations()
    ]


def deep_skip_requests(_client: httpx.Client, scale: Scale) -> list[Request]:
    """Return requests for 100 products near the end of the list, by how many are left out."""
    skip = scale.products - 2 * DEEP
    return [
        Request("GET", list_path(one, limit=DEEP, skip=skip), build_token(one))
        for one in reader_organizations()
    ]


def deep_cursor_requests(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return requests for the same 100 products, by the cursor that the page before gave."""
    before = scale.products - 3 * DEEP
    found = []
    for one in reader_organizations():
        page = fetch(client, Request("GET", list_path(one, limit=DEEP, skip=before), build_token(one)))
        path = list_path(one, limit=DEEP, cursor=page.json()["next_cursor"])
        found.append(Request("GET", path, build_token(one)))
    return found


def create_requests(body: dict[str, object]) -> Callable[[httpx.Client, Scale], list[Request]]:
    """Return what makes requests for a new product."""
    text = json.dumps(body)
    return lambda _, scale: [
        Request("POST", list_path(one), build_token(one), text) for one in writer_organizations()
    ]


def all_rows_requests(_client: httpx.Client, scale: Scale) -> list[Request]:
    """Return a request for the newest of all products there are, as only a superuser sees them."""
    return [Request("GET", f"{BASE_PATH}?limit={DEEP}", build_token(scale.superuser))]


def deep_all_rows_requests(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return a request for the oldest of all products, by cursor."""
    (first,) = all_rows_requests(client, scale)
    page = fetch(client, replace(first, path=f"{first.path}&skip={scale.rows - 2 * DEEP}"))
    return [replace(first, path=f"{first.path}&cursor={page.json()['next_cursor']}")]


OPERATIONS = (
    Operation("read", "read one product", 200, read_requests),
    Operation("not_modified", "read one that did not change (304)", 304, conditional_read_requests),
    Operation("list_20", "list 20", 200, first_page_requests(20)),
    Operation("list_100", "list 100", 200, first_page_requests(100)),
    Operation("skip_100", "list 100, deep, by `skip`", 200, deep_skip_requests),
    Operation("cursor_100", "list 100, deep, by `cursor`", 200, deep_cursor_requests),
    Operation("update", "update with If-Match", 200, update_requests, changes_etag=True),
    Operation("create", "create", 201, create_requests(dict(VALID))),
    Operation("invalid", "create what is invalid (422)", 422, create_requests(dict(INVALID))),
)

# Of ours alone: it is asked whether the depth of a page costs, not how fast others are.
OWN_OPERATIONS = (
    Operation("everybody", "list 100 of all rows", 200, all_rows_requests),
    Operation("everybody_deep", "the last 100 of all rows, by `cursor`", 200, deep_all_rows_requests),
)

OPERATIONS_BY_NAME = {operation.name: operation for operation in (*OPERATIONS, *OWN_OPERATIONS)}
