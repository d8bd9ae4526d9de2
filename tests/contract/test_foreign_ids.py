"""Ids of another tenant get the same response as unknown ids, wherever the contract accepts an id (BOLA).

The places come from the contract: path, query, and every property of a body, at any depth. The suite fails
for an id that it cannot resolve, so a new parameter is covered as soon as it is documented.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from db import tenancy
from db.models import Brand
from handlers.app import Application
from handlers.common.cursors import cursor_serializer
from handlers.common.permissions import Permission
from handlers.common.reads import One
from handlers.schemas.brands import BrandSchema
from tests.contract.operations import OPERATIONS, Operation, Request, resolve, unknown_id
from tests.contract.tenant import Tenant, is_for_superusers, make_more_rows
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, describe_response, drop_rate_limit_headers
from tests.support.failing_subtests import FailingSubtests
from tests.support.servers.image_hosts import IMAGE_URL_NAMES
from tests.support.snapshots import snapshot_rows

pytestmark = pytest.mark.without_policies  # only the tenant filter hides rows of other tenants

# Generation models belong to no tenant, and an external id names a row of the tenant in the query.
UNOWNED_REFERENCES = {"model_id", "external_id"}
# A property that exists for compatibility and refers to no row.
UNRESOLVED_REFERENCES = {"pose_preset_id"}
# Properties that name a row of the caller's tenant without an id: the kind of row and its column.
SLUG_REFERENCES = {
    "product_slug": ("product", "sku"),
    "product2_slug": ("product", "sku"),
    "subject_slug": ("subject", "slug"),
    "style_slug": ("style", "slug"),
    "shot_type_string": ("shot_type", "slug"),
}
# URLs of external servers, which refer to no row.
EXTERNAL_URL_FIELDS = {"issuer", "website", "url"}


def without_request_id(response: ClientResponse) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and body for comparison, without the request id."""
    comparable = drop_rate_limit_headers(response.headers)
    headers = {key: value for key, value in comparable.items() if key != "x-request-id"}
    body = {key: value for key, value in response.json().items() if key != "request_id"}
    return response.status, headers, body


@contextmanager
def assert_no_row_changes(app: Application) -> Iterator[None]:
    """Fail if the requests within the block change a row.

    One comparison for all requests of a test: reading all rows takes as long as two requests. No request
    hides what another one did, because each write sets `updated_at`.
    """
    before = snapshot_rows(app)
    yield
    after = snapshot_rows(app)
    changed = {name for name, rows in before.items() if rows != after[name]}
    assert not changed, {name: set(before[name]) ^ set(after[name]) for name in changed}


def assert_same_response(
    app: Application, headers: dict[str, str], foreign: Request, unknown: Request
) -> ClientResponse:
    """Return the response to a foreign id; it must equal that to an unknown id."""
    responses = [request.send(app, headers) for request in (foreign, unknown)]
    assert without_request_id(responses[0]) == without_request_id(responses[1])
    return responses[0]


def ids_in_path(operation: Operation) -> list[str]:
    """Return the path parameters that refer to rows of tenants."""
    return [
        name for name in operation.path_names() if name.endswith("_id") and name not in UNOWNED_REFERENCES
    ]


# The first path parameters of rows that may be personal.
OWNED_FILTERS = {
    "brand_id", "product_id", "subject_id", "style_id", "guidelines_id", "shot_type_id", "shooting_id",
    "background_preset_id", "resolution_preset_id", "shot_id", "generation_id", "prediction_id",
    "endpoint_id", "export_id", "import_id", "resource_id",
}  # fmt: skip
IN_PATHS = [
    (name, parameter)
    for name, operation in OPERATIONS.items()
    if not operation.is_public
    for parameter in ids_in_path(operation)
]


def test_without_the_tenant_filter_this_suite_finds_a_row_of_another_tenant(
    app: Application, tenant: Tenant, other_tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenancy, "row_filter", lambda *_, **__: ())
    monkeypatch.setattr(tenancy, "_select_by_id", tenancy._select_by_id.__wrapped__)
    monkeypatch.setattr("handlers.common.reads.select_row", tenancy.select_row.__wrapped__)
    # Declared again, because a declaration keeps its statements.
    monkeypatch.setattr(
        app.endpoints["get_brand"], "_handler", One(Brand, BrandSchema, Permission.BRANDS_READ)
    )
    response = other_tenant.request_for("get_brand").send(app, auth_headers(app, tenant.owner))
    assert response.status == 200


# The requests of a test change nothing, so they share the rows of the tenants. All are prepared before
# the first is sent, because some preparations change rows.


def test_s01_a_row_of_another_tenant_in_the_path_looks_absent(
    app: Application, tenant: Tenant, other_tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    """Parameters before the id belong to the caller, those after it to the foreign row."""
    headers, requests = auth_headers(app, tenant.owner), {}
    for name, parameter in IN_PATHS:
        request, theirs = tenant.request_for(name), other_tenant.request_for(name).path
        names = request.operation.path_names()
        request.path |= {following: theirs[following] for following in names[names.index(parameter) :]}
        requests[name, parameter] = request
    with assert_no_row_changes(app):
        for (name, parameter), request in requests.items():
            with failing_subtests.test(f"{name}, {parameter}"):
                unknown = request.replace(path={**request.path, parameter: unknown_id()})
                expected = 403 if is_for_superusers(request.operation) else 404
                for sent in zip(request.with_any_body(), unknown.with_any_body(), strict=True):
                    response = assert_same_response(app, headers, *sent)
                    assert response.status == expected, describe_response(response)


def test_s01_a_personal_row_of_another_user_looks_absent(
    app: Application, tenant: Tenant, personal_tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    headers = auth_headers(app, tenant.owner)
    names = [name for name, parameter in IN_PATHS if parameter in OWNED_FILTERS]
    requests = {name: personal_tenant.request_for(name) for name in names}
    with assert_no_row_changes(app):
        for name, theirs in requests.items():
            with failing_subtests.test(name):
                first = theirs.operation.path_names()[0]
                unknown = theirs.replace(path={**theirs.path, first: unknown_id()})
                for sent in zip(theirs.with_any_body(), unknown.with_any_body(), strict=True):
                    response = assert_same_response(app, headers, *sent)
                    assert response.status == 404, describe_response(response)


IN_QUERIES = [
    (name, parameter["name"])
    for name, operation in OPERATIONS.items()
    for parameter in operation.parameters
    if parameter["in"] == "query" and parameter["schema"].get("format") == "uuid"
]
# Filters of the audit log, by kind of row. Its targets may be deleted, so ids are not looked up.
AUDIT_LOG_FILTERS = {"actor_id": "user", "target_id": "brand"}


def test_s01_a_row_of_another_tenant_in_the_query_looks_absent(
    app: Application, tenant: Tenant, other_tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    headers = auth_headers(app, tenant.owner)
    requests = {(name, parameter): tenant.request_for(name) for name, parameter in IN_QUERIES}
    with assert_no_row_changes(app):
        for (name, parameter), request in requests.items():
            with failing_subtests.test(f"{name}, {parameter}"):
                kind = AUDIT_LOG_FILTERS.get(parameter, parameter.removesuffix("_id"))
                request.query[parameter] = str(other_tenant.rows[kind].id)
                unknown = request.replace(query={**request.query, parameter: unknown_id()})
                for sent in zip(request.with_any_body(), unknown.with_any_body(), strict=True):
                    response = assert_same_response(app, headers, *sent)
                    if parameter in AUDIT_LOG_FILTERS:
                        found = response.status, response.json()["data"]
                        assert found == (200, []), describe_response(response)
                    else:
                        expected = 403 if is_for_superusers(request.operation) else 404
                        assert response.status == expected, describe_response(response)


def properties(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every property of a body with its path, such as `look.notes`."""
    schema = resolve(schema)
    for word in ("allOf", "anyOf", "oneOf"):
        for alternative in schema.get(word, ()):
            yield from properties(alternative, place)
    for name, child in schema.get("properties", {}).items():
        yield place + name, resolve(child)
        yield from properties(child, f"{place}{name}.")


def is_reference(name: str, schema: dict[str, Any]) -> bool:
    """Return whether a property holds ids, slugs or URLs of rows."""
    value = resolve(schema["items"]) if schema.get("type") == "array" else schema
    refers = value.get("format") in ("uuid", "uri") or name.endswith("_slug") or name in SLUG_REFERENCES
    return refers and name not in UNOWNED_REFERENCES | UNRESOLVED_REFERENCES | EXTERNAL_URL_FIELDS


IN_BODIES = [
    (name, media_type, place)
    for name, operation in OPERATIONS.items()
    if not operation.is_public and not is_for_superusers(operation)
    for media_type in operation.media_types
    for place, schema in properties(operation.body_schema(media_type))
    if is_reference(place.split(".")[-1], schema)
]


def foreign_and_unknown(other_tenant: Tenant, name: str) -> tuple[str, str]:
    """Return values of a property that refer to a row of another tenant and to no row."""
    if name in IMAGE_URL_NAMES:
        return other_tenant.file_url(other_tenant.rows["resource"].id), other_tenant.file_url(unknown_id())
    if name == "images_zip_url":
        urls = (other_tenant.file_url(each) for each in (other_tenant.rows["upload"].id, unknown_id()))
        foreign, unknown = (url.replace("file.png", "file.zip") for url in urls)
        return foreign, unknown
    if name in SLUG_REFERENCES:
        kind, column = SLUG_REFERENCES[name]
        return getattr(other_tenant.rows[kind], column), "no-such-slug"
    kind = re.sub(r"^(default|main|source)_|2?_ids?$", "", name)
    return str(other_tenant.rows[kind].id), unknown_id()


def with_value(tenant: Tenant, request: Request, place: str, value: str) -> Request:
    """Return the request with this value at a path of its body, as a single item where it is a list."""
    changed = request.replace()
    schemas, node = dict(properties(request.operation.body_schema(str(request.media_type)))), changed.body
    *parents, last = place.split(".")
    for parent in parents:
        # The second alternative is null.
        schema = resolve(schemas[parent].get("anyOf", [schemas[parent]])[0])
        minimal = {name: schema["properties"][name]["example"] for name in schema.get("required", ())}
        node = node.setdefault(parent, tenant.replace_seed_ids(minimal))
        # An object and an id exclude each other.
        changed.body.pop(f"{parent}_id", None)
    node[last] = [value] if schemas[place].get("type") == "array" else value
    if last in SLUG_REFERENCES:
        # An id takes precedence over a slug.
        node.pop(re.sub(r"_(slug|string)$", "_id", last), None)
    return changed


def test_s02_a_row_of_another_tenant_in_a_body_looks_absent(
    app: Application, tenant: Tenant, other_tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    headers, requests = auth_headers(app, tenant.owner), {}
    for name, media_type, place in IN_BODIES:
        request = tenant.request_for(name)
        if media_type != request.media_type:
            request.media_type, request.body = media_type, tenant.body_for(request.operation, media_type)
        values = foreign_and_unknown(other_tenant, place.split(".")[-1])
        foreign, unknown = (with_value(tenant, request, place, value) for value in values)
        requests[name, media_type, place] = foreign, unknown
    with assert_no_row_changes(app):
        for case, (foreign, unknown) in requests.items():
            with failing_subtests.test(", ".join(case)):
                response = assert_same_response(app, headers, foreign, unknown)
                # `create_shooting` only compares the organization in its body with that of the query.
                is_compared = (case[0], case[2]) == ("create_shooting", "organization_id")
                assert response.status == (409 if is_compared else 404), describe_response(response)


def has_pages(operation: Operation) -> bool:
    """Return whether an operation lists rows in separate pages per tenant."""
    paged = {"cursor", "sort"} <= {parameter["name"] for parameter in operation.parameters}
    return paged and not operation.is_public and not is_for_superusers(operation)


@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if has_pages(operation)])
def test_s02_neither_a_list_nor_a_cursor_shows_rows_of_another_tenant(
    name: str, app: Application, tenant: Tenant, other_tenant: Tenant
) -> None:
    for owner in (tenant, other_tenant):
        make_more_rows(owner, name, 2)
    theirs, their_headers = other_tenant.request_for(name), auth_headers(app, other_tenant.owner)
    foreign = {row["id"] for row in theirs.send(app, their_headers).json()["data"]}
    theirs.query["limit"] = 1
    cursor = theirs.send(app, their_headers).json()["next_cursor"]
    assert cursor
    request, headers = tenant.request_for(name), auth_headers(app, tenant.owner)
    own = [row["id"] for row in request.send(app, headers).json()["data"]]
    assert len(own) >= 2
    assert foreign.isdisjoint(own)
    own_cursor = request.replace(query={**request.query, "limit": 1}).send(app, headers).json()["next_cursor"]
    # A cursor is valid for the list that it came from. One with their position and our list is signed here.
    serializer = cursor_serializer(app.settings.secret_keys)
    forged = serializer.dumps([serializer.loads(own_cursor)[0], *serializer.loads(cursor)[1:]])
    for sent, statuses in ((cursor, {200, 404}), (forged, {200})):
        response = request.replace(query={**request.query, "cursor": sent}).send(app, headers)
        assert response.status in statuses, describe_response(response)
        if response.status == 200:
            assert {row["id"] for row in response.json()["data"]} <= set(own)
