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
from tests.contract.every_operation import OPERATIONS, Operation, Request, resolved, unknown_id
from tests.contract.mini.asking import Reply, without_limits
from tests.contract.rows import all_rows
from tests.contract.world import MORE_ROWS, World, is_for_superusers
from tests.serving import bearer

# Generation models are the system's and belong to nobody.
OF_NOBODY = {"model_id"}
# A property that is there for compatibility and resolves to no row.
OF_NOTHING = {"pose_preset_id"}
# Words that mean a row of the caller's scope where no id is given: the kind of row and its column.
WORDS = {
    "product_slug": ("product", "sku"),
    "product2_slug": ("product", "sku"),
    "subject_slug": ("subject", "slug"),
    "style_slug": ("style", "slug"),
    "shot_type_string": ("shot_type", "slug"),
}
PICTURES = {"logo_url", "cover_image", "image_url", "file_url", "product_image", "product2_image"}
# Addresses of others' servers, which name nothing here.
ELSEWHERE = {"website", "url"}


def without_request_id(reply: Reply) -> tuple[int, dict[str, str], Any]:
    """Return what a stranger could compare: status, headers and body, all without the request id."""
    headers = {key: value for key, value in without_limits(reply.headers).items() if key != "x-request-id"}
    body = {key: value for key, value in reply.json().items() if key != "request_id"}
    return reply.status, headers, body


def explain(reply: Reply) -> str:
    """Return an answer for the message of a failed assertion."""
    return f"{reply.status} {reply.body[:600]!r}"


def compare(app: Application, headers: dict[str, str], foreign: Request, unknown: Request) -> Reply:
    """Return the answer to a foreign id, once found to be that to an unknown one and without effect."""
    before = all_rows(app)
    replies = [request.send(app, headers) for request in (foreign, unknown)]
    assert without_request_id(replies[0]) == without_request_id(replies[1])
    assert all_rows(app) == before
    return replies[0]


def ids_in_path(operation: Operation) -> list[str]:
    """Return the path parameters that name rows of somebody."""
    return [name for name in operation.path_names() if name.endswith("_id") and name not in OF_NOBODY]


# The first ids of paths to rows that may be personal.
OF_PEOPLE = {
    "brand_id", "product_id", "subject_id", "style_id", "guidelines_id", "shot_type_id", "shooting_id",
    "background_preset_id", "resolution_preset_id", "shot_id", "generation_id", "prediction_id",
    "endpoint_id", "export_id", "resource_id",
}  # fmt: skip
IN_PATHS = [
    (name, parameter)
    for name, operation in OPERATIONS.items()
    if not operation.is_open
    for parameter in ids_in_path(operation)
]


@pytest.mark.parametrize(("name", "parameter"), IN_PATHS)
def test_s01_a_row_of_others_in_the_path_looks_like_no_row(
    name: str, parameter: str, app: Application, world: World, stranger: World
) -> None:
    """What stands before the id is the caller's own, what follows belongs to the foreign row."""
    request, theirs = world.request_for(name), stranger.request_for(name).path
    names = request.operation.path_names()
    first = names.index(parameter)
    request.path |= {one: theirs[one] for one in names[first:]}
    unknown = request.changed(path={**request.path, parameter: unknown_id()})
    reply = compare(app, bearer(app, world.owner), request, unknown)
    assert reply.status == (403 if is_for_superusers(request.operation) else 404), explain(reply)


@pytest.mark.parametrize("name", [name for name, parameter in IN_PATHS if parameter in OF_PEOPLE])
def test_s01_a_personal_row_of_others_looks_like_no_row(name: str, app: Application, world: World) -> None:
    theirs = World(app.settings, personal=True).request_for(name)
    first = theirs.operation.path_names()[0]
    unknown = theirs.changed(path={**theirs.path, first: unknown_id()})
    reply = compare(app, bearer(app, world.owner), theirs, unknown)
    assert reply.status == 404, explain(reply)


IN_QUERIES = [
    (name, parameter["name"])
    for name, operation in OPERATIONS.items()
    for parameter in operation.parameters
    if parameter["in"] == "query" and parameter["schema"].get("format") == "uuid"
]
# Filters of the audit log, by kind of row: what it tells of may be gone, so nothing is looked up.
IN_THE_LOG = {"actor_id": "user", "target_id": "brand"}


@pytest.mark.parametrize(("name", "parameter"), IN_QUERIES)
def test_s01_a_row_of_others_in_the_query_looks_like_no_row(
    name: str, parameter: str, app: Application, world: World, stranger: World
) -> None:
    request = world.request_for(name)
    kind = IN_THE_LOG.get(parameter, parameter.removesuffix("_id"))
    request.query[parameter] = str(stranger.rows[kind].id)
    unknown = request.changed(query={**request.query, parameter: unknown_id()})
    reply = compare(app, bearer(app, world.owner), request, unknown)
    if parameter in IN_THE_LOG:
        assert (reply.status, reply.json()["data"]) == (200, []), explain(reply)
    else:
        assert reply.status == 404, explain(reply)


def properties(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Give every property of a body with where it stands, such as `look.notes`."""
    schema = resolved(schema)
    for word in ("allOf", "anyOf", "oneOf"):
        for one in schema.get(word, ()):
            yield from properties(one, place)
    for name, child in schema.get("properties", {}).items():
        yield place + name, resolved(child)
        yield from properties(child, f"{place}{name}.")


def names_a_row(name: str, schema: dict[str, Any]) -> bool:
    """Tell whether a property holds ids, words or addresses of rows."""
    one = resolved(schema["items"]) if schema.get("type") == "array" else schema
    named = one.get("format") in ("uuid", "uri") or name.endswith("_slug") or name in WORDS
    return named and name not in OF_NOBODY | OF_NOTHING | ELSEWHERE


IN_BODIES = [
    (name, media_type, place)
    for name, operation in OPERATIONS.items()
    if not operation.is_open and not is_for_superusers(operation)
    for media_type in operation.media_types
    for place, schema in properties(operation.body_schema(media_type))
    if names_a_row(place.split(".")[-1], schema)
]


def foreign_and_unknown(stranger: World, name: str) -> tuple[str, str]:
    """Return what a property says about a row of others, and the same about no row."""
    if name in PICTURES:
        return stranger.file_url(stranger.rows["resource"].id), stranger.file_url(unknown_id())
    if name in WORDS:
        kind, column = WORDS[name]
        return getattr(stranger.rows[kind], column), "no-such-words"
    kind = re.sub(r"^(default|main|source)_|2?_ids?$", "", name)
    return str(stranger.rows[kind].id), unknown_id()


def with_value(world: World, request: Request, place: str, value: str) -> Request:
    """Return the request with this value at a place of its body, alone where it is a list."""
    changed = request.changed()
    schemas, node = dict(properties(request.operation.body_schema(str(request.media_type)))), changed.body
    *parents, last = place.split(".")
    for parent in parents:
        # Null is the other alternative.
        schema = resolved(schemas[parent].get("anyOf", [schemas[parent]])[0])
        least = {name: schema["properties"][name]["example"] for name in schema.get("required", ())}
        node = node.setdefault(parent, world.own(least))
        # An object stands in for the row that an id would name.
        changed.body.pop(f"{parent}_id", None)
    node[last] = [value] if schemas[place].get("type") == "array" else value
    if last in WORDS:
        # An id comes before words.
        node.pop(re.sub(r"_(slug|string)$", "_id", last), None)
    return changed


@pytest.mark.parametrize(("name", "media_type", "place"), IN_BODIES)
def test_s02_a_row_of_others_in_a_body_looks_like_no_row(
    name: str, media_type: str, place: str, app: Application, world: World, stranger: World
) -> None:
    request = world.request_for(name)
    if media_type != request.media_type:
        request.media_type, request.body = media_type, world.body_for(request.operation, media_type)
    values = foreign_and_unknown(stranger, place.split(".")[-1])
    requests = [with_value(world, request, place, value) for value in values]
    reply = compare(app, bearer(app, world.owner), *requests)
    # The organization of a body is only compared with that of the query, and never looked up.
    assert reply.status == (409 if place == "organization_id" else 404), explain(reply)


def can_be_walked(operation: Operation) -> bool:
    """Tell whether an operation has pages of its own for each tenant."""
    paged = any(parameter["name"] == "cursor" for parameter in operation.parameters)
    return paged and not operation.is_open and not is_for_superusers(operation)


@pytest.mark.parametrize("name", [name for name, one in OPERATIONS.items() if can_be_walked(one)])
def test_s02_a_cursor_of_others_shows_none_of_their_rows(
    name: str, app: Application, world: World, stranger: World
) -> None:
    for tenant in (world, stranger):
        MORE_ROWS[name](tenant)
        MORE_ROWS[name](tenant)
    theirs = stranger.request_for(name)
    theirs.query["limit"] = 1
    cursor = theirs.send(app, bearer(app, stranger.owner)).json()["next_cursor"]
    assert cursor
    request, headers = world.request_for(name), bearer(app, world.owner)
    own = [row["id"] for row in request.send(app, headers).json()["data"]]
    reply = request.changed(query={**request.query, "cursor": cursor}).send(app, headers)
    assert reply.status == 200, explain(reply)
    assert {row["id"] for row in reply.json()["data"]} <= set(own)
    assert len(own) >= 2
