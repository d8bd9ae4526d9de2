"""The OpenAPI 3.0 document that is derived from the contract says the same in the words of 3.0."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from openapi_schema_validator import OAS30Validator, OAS31Validator
from openapi_spec_validator import OpenAPIV30SpecValidator

from handlers.contract.errors import ContractError
from handlers.contract.openapi_30 import to_openapi_30
from tests.contract.mini.server import load_mini_document
from tests.contract.operations import CONTRACT

NULL = {"type": "null"}
COLOR = {"$ref": "#/components/schemas/Color"}


def convert(schema: dict[str, Any], **components: Any) -> dict[str, Any]:
    """Return the components of 3.0 for a document whose only response has a schema."""
    response = {"description": "OK", "content": {"application/json": {"schema": schema}}}
    document = {
        "openapi": "3.1.1",
        "info": {"title": "Test", "version": "1"},
        "paths": {"/": {"get": {"responses": {"200": response}}}},
        "components": {"schemas": components},
    }
    before = copy.deepcopy(document)
    converted = to_openapi_30(document)
    assert document == before
    OpenAPIV30SpecValidator(converted).validate()
    found = converted["paths"]["/"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    return {"": found, **converted["components"].get("schemas", {})}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": ["string", "null"], "maxLength": 3}, {"type": "string", "maxLength": 3, "nullable": True}),
        ({"type": ["string"]}, {"type": "string"}),
        (
            {"type": ["string", "null"], "enum": ["a", None]},
            {"type": "string", "enum": ["a", None], "nullable": True},
        ),
        ({"exclusiveMaximum": 0}, {"maximum": 0, "exclusiveMaximum": True}),
        ({"type": "string", "const": "a"}, {"type": "string", "enum": ["a"]}),
        # Values of examples and names of properties stay.
        ({"type": "object", "example": {"type": ["a", "null"]}},) * 2,
        ({"type": "object", "properties": {"example": {"type": ["string", "null"]}, "if": {}}},
         {"type": "object", "properties": {"example": {"type": "string", "nullable": True}, "if": {}}}),
    ],
)  # fmt: skip
def test_a_schema_of_3_1_becomes_one_of_3_0(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert convert(schema) == {"": expected}


def test_a_component_that_can_be_null_gets_a_twin_without_a_title() -> None:
    color = {"title": "Color", "type": "string", "enum": ["red"]}
    box = {"type": "object", "properties": {"color": {"anyOf": [COLOR, NULL], "description": "Or none."}}}
    schema = {"type": "array", "items": {"anyOf": [{"$ref": "#/components/schemas/Box"}, NULL]}}
    assert convert(schema, Color=color, Box=box) == {
        "": {"type": "array", "items": {"$ref": "#/components/schemas/NullableBox"}},
        # Box and Color are not used any more.
        "NullableBox": {
            "type": "object",
            "nullable": True,
            "properties": {
                "color": {
                    "allOf": [{"$ref": "#/components/schemas/NullableColor"}],
                    "description": "Or none.",
                }
            },
        },
        "NullableColor": {"type": "string", "enum": ["red", None], "nullable": True},
    }


def test_null_matches_one_branch_of_a_choice_that_can_be_null() -> None:
    shot, choice = (
        {"type": "object"},
        {"type": "object", "oneOf": [{"$ref": "#/components/schemas/Shot"}, COLOR]},
    )
    body = {"anyOf": [{"$ref": "#/components/schemas/Body"}, NULL]}
    converted = convert({"type": "array", "items": body}, Shot=shot, Body=choice, Color={"type": "string"})
    assert converted["NullableBody"] == {"oneOf": [{"$ref": "#/components/schemas/NullableShot"}, COLOR]}
    assert converted["NullableShot"] == {"type": "object", "nullable": True}


@pytest.mark.parametrize(
    "schema",
    [
        NULL,
        {"type": ["string", "integer"]},
        {"anyOf": [COLOR, {"type": "string"}, NULL]},
        {"anyOf": [{"type": "string"}, NULL]},
        {"anyOf": [{"$ref": "#/components/schemas/Choice"}, NULL]},
        {"type": "number", "minimum": 1, "exclusiveMinimum": 0},
        {"type": "object", "patternProperties": {}},
    ],
)
def test_what_3_0_cannot_say_is_an_error_with_its_place(schema: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match=r"OpenAPI 3\.0 cannot say .*: #/(paths|components)/"):
        convert(
            {"type": "object", "properties": {"a": schema}}, Color={"type": "string"}, Choice={"oneOf": []}
        )


def test_webhooks_and_their_components_are_left_out() -> None:
    document = load_mini_document()
    document["components"]["schemas"]["Event"] = {"type": "object"}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Event"}}}
    body = {"post": {"requestBody": {"content": content}, "responses": {"204": {"description": "OK"}}}}
    expected = to_openapi_30(load_mini_document())
    assert to_openapi_30({**document, "webhooks": {"event": body}}) == expected


def test_both_forms_of_the_contract_accept_the_same_values() -> None:
    """Each schema of 3.1 is compared with its form in 3.0 on its example, on null and on broken examples."""
    contract = without_directions(CONTRACT)
    derived = to_openapi_30(contract)
    compared = 0
    for name, schema in contract["components"]["schemas"].items():
        if name not in derived["components"]["schemas"]:
            continue
        validators = [
            validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]})
            for validator, document in ((OAS31Validator, contract), (OAS30Validator, derived))
        ]
        for value in list_variants(schema.get("example")):
            verdicts = [validator.is_valid(value) for validator in validators]
            assert verdicts[0] == verdicts[1], f"{name}: {json.dumps(value)}"
            compared += 1
    assert compared > 1000


def without_directions(node: Any) -> Any:
    """Return a copy without `readOnly` and `writeOnly`, of which only the validator of 3.0 takes notice."""
    if isinstance(node, list):
        return [without_directions(part) for part in node]
    if isinstance(node, dict):
        keys = node.keys() - {"readOnly", "writeOnly"}
        return {key: without_directions(part) for key, part in node.items() if key in keys}
    return node


def list_variants(example: Any) -> list[Any]:
    """Return an example, and copies in which one value is null, has another type or is missing."""
    if not isinstance(example, dict):
        return [example, None, 7, "x"]
    others = [None, 7]
    changed = [{**example, name: other} for name in example for other in others]
    without = [{key: value for key, value in example.items() if key != name} for name in example]
    return [example, None, *changed, *without]
