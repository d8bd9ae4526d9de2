"""The measured operations, each with prepared requests of 50 accounts.

Requests are prepared so that sending them takes little CPU time. Cursors and ETags, which only the server
knows, are fetched from the measured server first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx

from tools.bench.rows import (
    ACTIVE_ORGANIZATIONS,
    Scale,
    build_token,
    organization_id,
    published_image_path,
)

BASE_PATH = "/api/v1/products/"
DEEP = 100
"""The number of rows in a deep page, which is near the end of its list."""
PRODUCTS_PER_ORGANIZATION = 6
COUNTER = "{n}"
"""The placeholder in a body or key for a number that is unique to each request of a measurement."""
RUN = "{run}"
"""The placeholder in a key for a text that is unique to each measurement."""
BATCH = 100
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
    """One request.

    `tag` is sent as `If-None-Match` for GET and as `If-Match` otherwise, `key` as `Idempotency-Key`.
    """

    method: str
    path: str
    token: str
    body: str = ""
    tag: str = ""
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of the request."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if self.body:
            headers["Content-Type"] = "application/json"
        if self.tag:
            headers["If-None-Match" if self.method == "GET" else "If-Match"] = self.tag
        if self.key:
            headers["Idempotency-Key"] = self.key
        return headers


@dataclass(frozen=True)
class Operation:
    """One measured operation, with its requests and the expected status."""

    name: str
    title: str
    status: int
    requests: Callable[[httpx.Client, Scale], list[Request]]
    changes_etag: bool = False
    """Whether each request needs the ETag of an earlier response."""


class UnexpectedResponse(RuntimeError):
    """A response has an unexpected status."""


def fetch(client: httpx.Client, request: Request, status: int = 200) -> httpx.Response:
    """Send one request and return its response.

    Raises:
        UnexpectedResponse: The response has another status.
    """
    content = request.body or None
    response = client.request(request.method, request.path, headers=request.headers, content=content)
    if response.status_code != status:
        actual = f"{response.status_code} {response.text[:500]}"
        raise UnexpectedResponse(f"{request.method} {request.path}: expected {status}, received {actual}")
    return response


def reader_organizations() -> range:
    """Return the numbers of the organizations that receive read requests; their owners have the same."""
    return range(1, ACTIVE_ORGANIZATIONS + 1)


def writer_organizations() -> range:
    """Return the organizations in which products are created. Their lists are not measured."""
    return range(ACTIVE_ORGANIZATIONS + 1, 2 * ACTIVE_ORGANIZATIONS + 1)


def list_path(organization: int, **parameters: object) -> str:
    """Return the path of a page of an organization's products."""
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
    """Return requests that read one product each."""
    return _read_requests(scale)


def conditional_read_requests(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return the same requests with the current ETags of the products."""
    return [replace(each, tag=fetch(client, each).headers["etag"]) for each in _read_requests(scale)]


def update_requests(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return updates, with the current ETags, of products that no other operation reads by id."""
    body = json.dumps({"color": f"sand {COUNTER}"})
    return [
        replace(each, tag=fetch(client, each).headers["etag"], method="PATCH", body=body)
        for each in _read_requests(scale, 1 + PRODUCTS_PER_ORGANIZATION)
    ]


def first_page_requests(limit: int) -> Callable[[httpx.Client, Scale], list[Request]]:
    """Return a function that builds requests for the first page."""
    return lambda _, scale: [
        Request("GET", list_path(one, limit=limit), build_token(one)) for one in reader_organizations()
    ]


def deep_skip_requests(_client: httpx.Client, scale: Scale) -> list[Request]:
    """Return requests for 100 products near the end of the list, with `skip`."""
    skip = scale.products - 2 * DEEP
    return [
        Request("GET", list_path(one, limit=DEEP, skip=skip), build_token(one))
        for one in reader_organizations()
    ]


def deep_cursor_requests(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return requests for the same 100 products, with the cursor of the page before."""
    skip = scale.products - 3 * DEEP
    requests = []
    for organization in reader_organizations():
        token = build_token(organization)
        page = fetch(client, Request("GET", list_path(organization, limit=DEEP, skip=skip), token))
        path = list_path(organization, limit=DEEP, cursor=page.json()["next_cursor"])
        requests.append(Request("GET", path, build_token(organization)))
    return requests


def create_requests(body: dict[str, object]) -> Callable[[httpx.Client, Scale], list[Request]]:
    """Return a function that builds requests that create a product."""
    text = json.dumps(body)
    return lambda _, scale: [
        Request("POST", list_path(one), build_token(one), text) for one in writer_organizations()
    ]


def create_with_key_requests(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return requests that create a product, each with another `Idempotency-Key`."""
    return [
        replace(each, key=f"bench-{RUN}-{COUNTER}") for each in create_requests(dict(VALID))(client, scale)
    ]


def batch_requests(_client: httpx.Client, _scale: Scale) -> list[Request]:
    """Return requests that create 100 products each."""
    items = [{"action": "create", "body": {**VALID, "name": f"Linen shirt {n}"}} for n in range(BATCH)]
    text = json.dumps({"items": items})
    return [
        Request("POST", list_path(one).replace("?", "batch?"), build_token(one), text)
        for one in writer_organizations()
    ]


def published_image_requests(_client: httpx.Client, _scale: Scale) -> list[Request]:
    """Return requests for published images. They need no token."""
    return [Request("GET", published_image_path(one), "") for one in reader_organizations()]


def all_rows_requests(_client: httpx.Client, scale: Scale) -> list[Request]:
    """Return a superuser's request for the newest products of all organizations."""
    return [Request("GET", f"{BASE_PATH}?limit={DEEP}", build_token(scale.superuser))]


def deep_all_rows_requests(client: httpx.Client, scale: Scale) -> list[Request]:
    """Return a superuser's request for the oldest products of all organizations, with a cursor."""
    (first,) = all_rows_requests(client, scale)
    page = fetch(client, replace(first, path=f"{first.path}&skip={scale.rows - 2 * DEEP}"))
    return [replace(first, path=f"{first.path}&cursor={page.json()['next_cursor']}")]


OPERATIONS = (
    Operation("read", "read one product", 200, read_requests),
    Operation("not_modified", "read one unchanged product (304)", 304, conditional_read_requests),
    Operation("list_1", "list 1", 200, first_page_requests(1)),
    Operation("list_3", "list 3", 200, first_page_requests(3)),
    Operation("list_20", "list 20", 200, first_page_requests(20)),
    Operation("list_100", "list 100", 200, first_page_requests(100)),
    Operation("skip_100", "list 100, deep, by `skip`", 200, deep_skip_requests),
    Operation("cursor_100", "list 100, deep, by `cursor`", 200, deep_cursor_requests),
    Operation("update", "update with If-Match", 200, update_requests, changes_etag=True),
    Operation("create", "create", 201, create_requests(dict(VALID))),
    Operation("invalid", "create an invalid product (422)", 422, create_requests(dict(INVALID))),
    Operation("with_key", "create with an Idempotency-Key", 201, create_with_key_requests),
    Operation("batch", f"create {BATCH} in a batch", 200, batch_requests),
    Operation("published", "read a published image of 200 kB", 200, published_image_requests),
)

# Measured only for our own server: they show whether the depth of a page costs time.
OWN_OPERATIONS = (
    Operation("all_rows", "list 100 of all rows", 200, all_rows_requests),
    Operation("all_rows_deep", "list 100 of all rows, deep, by `cursor`", 200, deep_all_rows_requests),
)

OPERATIONS_BY_NAME = {operation.name: operation for operation in (*OPERATIONS, *OWN_OPERATIONS)}
