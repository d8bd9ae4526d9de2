"""Which parts of an operation a request uses: the operation, what it sends, and deprecated properties."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from handlers.contract.coercion import ConverterCompiler
from handlers.contract.document import Document
from handlers.contract.parameters import Parameters
from handlers.contract.schema_compiler import SchemaCompiler
from handlers.contract.used_parts import (
    Deprecated,
    Part,
    PartKind,
    find_deprecated_parts,
    find_used_properties,
    list_deprecated_properties,
)

SUNSET = "2027-06-01T00:00:00Z"
DEPRECATED = {"type": "string", "deprecated": True, "x-sunset": SUNSET, "x-replacement": "title"}
SCHEMAS = {
    "Look": {
        "type": "object",
        "properties": {
            "name": DEPRECATED,
            "notes": {"anyOf": [{"$ref": "#/components/schemas/Notes"}, {"type": "null"}]},
            "looks": {"type": "array", "items": {"$ref": "#/components/schemas/Look"}},
        },
    },
    "Notes": {"type": "object", "additionalProperties": {"type": "object", "properties": {"by": DEPRECATED}}},
}
BODY = {
    "allOf": [
        {"properties": {"looks": {"type": "array", "items": {"$ref": "#/components/schemas/Look"}}}},
        {"properties": {"old": DEPRECATED, "title": {"type": "string"}}},
    ]
}


@pytest.fixture
def document() -> Document:
    """Return a contract with one operation, which has parameters of each kind and a nested body."""

    def parameter(location: str, name: str, **values: Any) -> dict[str, Any]:
        return {"in": location, "name": name, "schema": {"type": "string"}, **values}

    operation = {
        "operationId": "create_shooting",
        "parameters": [
            parameter("path", "brand_id", required=True),
            parameter("query", "q"),
            parameter("query", "search", deprecated=True, **{"x-replacement": "q"}),
            parameter("header", "If-Match"),
        ],
        "requestBody": {"content": {"application/json": {"schema": BODY}}},
    }
    return Document({"paths": {"/a/{brand_id}": {"post": operation}}, "components": {"schemas": SCHEMAS}})


@pytest.mark.parametrize(
    ("query", "headers", "names"),
    [
        (b"", [], []),
        (b"q=a&q=b", [(b"accept", b"*/*")], ["q"]),
        (b"limit=1&search=q", [(b"if-match", b"x")], ["search", "If-Match"]),
        (b"=&&q", [], ["q"]),
    ],
)
def test_a_request_sends_parameters(
    document: Document, query: bytes, headers: list[tuple[bytes, bytes]], names: list[str]
) -> None:
    (raw,) = document.operations()
    parameters = Parameters(document, SchemaCompiler(document), ConverterCompiler(document), raw)
    assert parameters.find_sent(query, headers) == names


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"title": "New"}, []),
        ({"old": None}, ["old"]),
        (
            {"looks": [{}, {"name": "A"}, {"notes": {"first": {"by": "Ana"}}}]},
            ["looks/*/name", "looks/*/notes/*/by"],
        ),
        ({"looks": "wrong", "old": 1}, ["old"]),
        (None, []),
        ([{"old": 1}], []),
    ],
)
def test_a_body_uses_its_deprecated_properties(document: Document, body: Any, names: list[str]) -> None:
    (raw,) = document.operations()
    found = find_used_properties(raw.operation_id, list_deprecated_properties(document, raw), body)
    assert sorted(part.name for part in found) == names
    of_property = Deprecated(datetime(2027, 6, 1, tzinfo=UTC), "title")
    parts = find_deprecated_parts(document)
    assert [parts[part] for part in found] == [of_property] * len(found)
    assert parts[Part("create_shooting", PartKind.PARAMETER, "search")] == Deprecated(None, "q")
    # A look in a look is the same schema, so it has no path of its own.
    assert len(parts) == 4
