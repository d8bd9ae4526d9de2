"""Ids of one organization in the hands of another, wherever the contract takes one: nothing is told or done.

The places come from the contract: path, query, and every property of a body, at any depth. An id that the
suite cannot place fails it, so a new one is here the day it is described.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from handlers.app import Application
from tests.contract.operations import OPERATIONS, Operation, Request, resolve, unknown_id
from tests.contract.tenant import MORE_ROWS, Tenant, is_for_superusers
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, drop_rate_limit_headers
from tests.support.snapshots import snapshot_rows

# Generation models are the system's and belong to nobody.
UNOWNED_REFERENCES = {"model_id"}
# A property that is there for compatibility and resolves to no row.
UNRESOLVED_REFERENCES = {"pose_preset_id"}
# Words that mean a row of the caller's scope where no id is given: the kind of row and its column.
SLUG_REFERENCES = {
    "product_slug": ("product", "sku"),
    "product2_slug": ("product", "sku"),
    "subject_slug": ("subject", "slug"),
    "style_slug": ("style", "slug"),
    "shot_type_string": ("shot_type", "slug"),
}
IMAGE_URL_FIELDS = {"logo_url", "cover_image", "image_url", "file_url", "product_image", "product2_image"}
# Addresses of others' servers, which name nothing here.
EXTERNAL_URL_FIELDS = {"website", "url"}


def without_request_id(reply: ClientResponse) -> tuple[int, dict[str, str], Any]:
    """Return what a stranger could compare: status, headers and body, all without the request id."""
    headers = {
        key: value for key, value in drop_rate_limit_headers(reply.headers).items() if key != "x-request-id"
    }
    body = {key: value for key, value in reply.json().items() if key != "request_id"}
    return reply.status, headers, body


def describe_response(reply: ClientResponse) -> str:
    """Return an answer for the message of a failed assertion."""
    return f"{reply.status} {reply.body[:600]!r}"


def assert_same_response(
    app: Application, headers: dict[str, str], foreign: Request, unknown: Request
) -> ClientResponse:
    """Return the answer to a foreign id, once found to be that to an unknown one and without effect."""
    before = snapshot_rows(app)
    replies = [request.send(app, headers) for request in (foreign, unknown)]
    assert without_request_id(replies[0]) == without_request_id(replies[1])
    assert snapshot_rows(app) == before
    return replies[0]


def ids_in_path(operation: Operation) -> list[str]:
    """Return the path parameters that name rows of somebody."""
    return [
        name for name in operation.path_names() if name.endswith("_id") and name not in UNOWNED_REFERENCES
    ]


# The first ids of paths to rows that may be personal.
OWNED_FILTERS = {
    "brand_id", "product_id", "subject_id", "style_id", "guidelines_id", "shot_type_id", "shooting_id",
    "background_preset_id", "resolution_preset_id", "shot_id", "generation_id", "prediction_id",
    "endpoint_id", "export_id", "resource_id",
}  # fmt: skip
IN_PATHS = [
    (name, parameter)
    for name, operation in OPERATIONS.items()
    if not operation.is_public
    for parameter in ids_in_path(operation)
]


@pytest.mark.parametrize(("name", "parameter"), IN_PATHS)
def test_s01_a_row_of_others_in_the_path_looks_like_no_row(
    name: str, parameter: str, app: Application, tenant: Tenant, other_tenant: Tenant
) -> None:
    """What stands before the id is the caller's own, what follows belongs to the foreign row."""
    request, theirs = tenant.request_for(name), other_tenant.request_for(name).path
    names = request.operation.path_names()
    first = names.index(parameter)
    request.path |= {one: theirs[one] for one in names[first:]}
    unknown = request.replace(path={**request.path, parameter: unknown_id()})
    reply = assert_same_response(app, auth_headers(app, tenant.owner), request, unknown)
    assert reply.status == (403 if is_for_superusers(request.operation) else 404), describe_response(reply)


@pytest.mark.parametrize("name", [name for name, parameter in IN_PATHS if parameter in OWNED_FILTERS])
def test_s01_a_personal_row_of_others_looks_like_no_row(name: str, app: Application, tenant: Tenant) -> None:
    theirs = Tenant(app.settings, personal=True).request_for(name)
    first = theirs.operation.path_names()[0]
    unknown = theirs.replace(path={**theirs.path, first: unknown_id()})
    reply = assert_same_response(app, auth_headers(app, tenant.owner), theirs, unknown)
    assert reply.status == 404, describe_response(reply)


IN_QUERIES = [
    (name, parameter["name"])
    for name, operation in OPERATIONS.items()
    for parameter in operation.parameters
    if parameter["in"] == "query" and parameter["schema"].get("format") == "uuid"
]
# Filters of the audit log, by kind of row: what it tells of may be gone, so nothing is looked up.
AUDIT_LOG_FILTERS = {"actor_id": "user", "target_id": "brand"}


@pytest.mark.parametrize(("name", "parameter"), IN_QUERIES)
def test_s01_a_row_of_others_in_the_query_looks_like_no_row(
    name: str, parameter: str, app: Application, tenant: Tenant, other_tenant: Tenant
) -> None:
    request = tenant.request_for(name)
    kind = AUDIT_LOG_FILTERS.get(parameter, parameter.removesuffix("_id"))
    request.query[parameter] = str(other_tenant.rows[kind].id)
    unknown = request.replace(query={**request.query, parameter: unknown_id()})
    reply = assert_same_response(app, auth_headers(app, tenant.owner), request, unknown)
    if parameter in AUDIT_LOG_FILTERS:
        assert (reply.status, reply.json()["data"]) == (200, []), describe_response(reply)
    else:
        assert reply.status == 404, describe_response(reply)


def properties(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Give every property of a body with where it stands, such as `look.notes`."""
    schema = resolve(schema)
    for word in ("allOf", "anyOf", "oneOf"):
        for one in schema.get(word, ()):
            yield from properties(one, place)
    for name, child in schema.get("properties", {}).items():
        yield place + name, resolve(child)
        yield from properties(child, f"{place}{name}.")


def is_reference(name: str, schema: dict[str, Any]) -> bool:
    """Tell whether a property holds ids, words or addresses of rows."""
    one = resolve(schema["items"]) if schema.get("type") == "array" else schema
    named = one.get("format") in ("uuid", "uri") or name.endswith("_slug") or name in SLUG_REFERENCES
    return named and name not in UNOWNED_REFERENCES | UNRESOLVED_REFERENCES | EXTERNAL_URL_FIELDS


IN_BODIES = [
    (name, media_type, place)
    for name, operation in OPERATIONS.items()
    if not operation.is_public and not is_for_superusers(operation)
    for media_type in operation.media_types
    for place, schema in properties(operation.body_schema(media_type))
    if is_reference(place.split(".")[-1], schema)
]


def foreign_and_unknown(other_tenant: Tenant, name: str) -> tuple[str, str]:
    """Return what a property says about a row of others, and the same about no row."""
    if name in IMAGE_URL_FIELDS:
        return other_tenant.file_url(other_tenant.rows["resource"].id), other_tenant.file_url(unknown_id())
    if name in SLUG_REFERENCES:
        kind, column = SLUG_REFERENCES[name]
        return getattr(other_tenant.rows[kind], column), "no-such-words"
    kind = re.sub(r"^(default|main|source)_|2?_ids?$", "", name)
    return str(other_tenant.rows[kind].id), unknown_id()


def with_value(tenant: Tenant, request: Request, place: str, value: str) -> Request:
    """Return the request with this value at a place of its body, alone where it is a list."""
    changed = request.replace()
    schemas, node = dict(properties(request.operation.body_schema(str(request.media_type)))), changed.body
    *parents, last = place.split(".")
    for parent in parents:
        # Null is the other alternative.
        schema = resolve(schemas[parent].get("anyOf", [schemas[parent]])[0])
        least = {name: schema["properties"][name]["example"] for name in schema.get("required", ())}
        node = node.setdefault(parent, tenant.replace_seed_ids(least))
        # An object stands in for the row that an id would name.
        changed.body.pop(f"{parent}_id", None)
    node[last] = [value] if schemas[place].get("type") == "array" else value
    if last in SLUG_REFERENCES:
        # An id comes before words.
        node.pop(re.sub(r"_(slug|string)$", "_id", last), None)
    return changed


@pytest.mark.parametrize(("name", "media_type", "place"), IN_BODIES)
def test_s02_a_row_of_others_in_a_body_looks_like_no_row(
    name: str, media_type: str, place: str, app: Application, tenant: Tenant, other_tenant: Tenant
) -> None:
    request = tenant.request_for(name)
    if media_type != request.media_type:
        request.media_type, request.body = media_type, tenant.body_for(request.operation, media_type)
    values = foreign_and_unknown(other_tenant, place.split(".")[-1])
    requests = [with_value(tenant, request, place, value) for value in values]
    reply = assert_same_response(app, auth_headers(app, tenant.owner), *requests)
    # The organization of a body is only compared with that of the query, and never looked up.
    assert reply.status == (409 if place == "organization_id" else 404), describe_response(reply)


def has_pages(operation: Operation) -> bool:
    """Tell whether an operation has pages of its own for each tenant."""
    paged = any(parameter["name"] == "cursor" for parameter in operation.parameters)
    return paged and not operation.is_public and not is_for_superusers(operation)


@pytest.mark.parametrize("name", [name for name, one in OPERATIONS.items() if has_pages(one)])
def test_s02_a_cursor_of_others_shows_none_of_their_rows(
    name: str, app: Application, tenant: Tenant, other_tenant: Tenant
) -> None:
    for each in (tenant, other_tenant):
        MORE_ROWS[name](each)
        MORE_ROWS[name](each)
    theirs = other_tenant.request_for(name)
    theirs.query["limit"] = 1
    cursor = theirs.send(app, auth_headers(app, other_tenant.owner)).json()["next_cursor"]
    assert cursor
    request, headers = tenant.request_for(name), auth_headers(app, tenant.owner)
    own = [row["id"] for row in request.send(app, headers).json()["data"]]
    reply = request.replace(query={**request.query, "cursor": cursor}).send(app, headers)
    assert reply.status == 200, describe_response(reply)
    assert {row["id"] for row in reply.json()["data"]} <= set(own)
    assert len(own) >= 2
