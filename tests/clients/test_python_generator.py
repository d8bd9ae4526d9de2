"""Tests of the generator of the Python client, on small contracts."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from tools.clients.python_package import escape, python_name, render
from tools.clients.python_types import Types, UnknownSchema

SCHEMAS: dict[str, dict[str, Any]] = {
    "Color": {"type": "string", "enum": ["red", "blue"]},
    "Mug": {"type": "object", "properties": {"color": {"$ref": "#/components/schemas/Color"}}},
    "Count": {"type": "integer"},
    "Labels": {"type": "object", "additionalProperties": {"type": "string"}},
}
TYPES = Types(SCHEMAS)


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize(
    ("schema", "received", "sent"),
    [
        ({"type": ["string", "null"]}, "str | None", "str | None"),
        ({"type": "string", "format": "uuid"}, "str", "str"),
        ({"type": "string", "format": "date-time"}, "dt.datetime", "dt.datetime | str"),
        ({"type": "string", "format": "binary"}, "FileInput", "FileInput"),
        (ref("Color"), "enums.Color | str", "enums.Color"),
        ({"anyOf": [ref("Color"), {"type": "null"}]}, "enums.Color | str | None", "enums.Color | None"),
        ({"allOf": [ref("Mug")], "description": "A mug."}, "models.Mug", "params.Mug"),
        ({"type": "array", "items": ref("Mug")}, "list[models.Mug]", "Sequence[params.Mug]"),
        (ref("Count"), "int", "int"),
        (ref("Labels"), "dict[str, str]", "Mapping[str, str]"),
        ({"type": "string", "enum": ["a"]}, "Literal['a'] | str", "Literal['a']"),
        ({"type": "string", "x-extensible-enum": ["a"]}, "Literal['a'] | str", "Literal['a']"),
        ({}, "Any", "Any"),
        (
            {"oneOf": [ref("Mug")], "discriminator": {"propertyName": "kind"}},
            "models.Mug | UnknownModel",
            "params.Mug",
        ),
    ],
)
def test_a_schema_becomes_a_type(schema: dict[str, Any], received: str, sent: str) -> None:
    assert TYPES.annotate(schema, "response") == received
    assert TYPES.annotate(schema, "request") == sent


def test_an_object_without_a_name_is_rejected() -> None:
    with pytest.raises(UnknownSchema):
        TYPES.annotate({"type": "object", "properties": {"color": {"type": "string"}}}, "response")


def test_the_schemas_of_schemas_are_found() -> None:
    assert TYPES.reachable([{"items": ref("Mug")}]) == ["Color", "Mug"]


def test_names_are_valid_in_python() -> None:
    assert [python_name(name) for name in ("If-Match", "from", "sku")] == ["if_match", "from_", "sku"]


def test_a_description_cannot_end_its_docstring() -> None:
    text = 'Ends with """ and a backslash \\ and "quotes"'
    assert ast.literal_eval(f'"""{escape(text)}"""') == text.rstrip('"')


def test_two_arguments_with_one_name_are_rejected() -> None:
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("sku", "SKU")]
    node = {
        "operationId": "list_mugs",
        "tags": ["mugs"],
        "summary": "List",
        "parameters": parameters,
        "responses": {},
    }
    contract = {
        "info": {"version": "1.0"},
        "tags": [{"name": "mugs"}],
        "paths": {"/mugs/": {"get": node}},
        "webhooks": {},
        "components": {"schemas": {**SCHEMAS, "GenerationEvent": {"type": "object"}}, "responses": {}},
    }
    with pytest.raises(ValueError, match="list_mugs has two arguments with one name"):
        render(contract)
