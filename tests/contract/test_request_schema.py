"""Values of requests are validated piece by piece: with the same errors, and with a limit of the work."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.contract.document import Document
from handlers.contract.request_schema import RequestSchema, split_schema
from handlers.contract.schema_compiler import SchemaCompiler, translate
from handlers.contract.validation_errors import MAX_VIOLATIONS, find_violations
from tests.architecture.bundle import list_schemas, request_roots
from tests.contract.operations import CONTRACT
from tests.support.client import new_item

MAX_SECONDS = 0.1
"""The limit for the violations of one value. Each of these values took 0.5 seconds to some minutes."""
MAX_ATTEMPTS = 10
SCHEMAS = CONTRACT["components"]["schemas"]
MINI = {
    "Text": {"type": "string", "maxLength": 3},
    "Part": {
        "type": "object",
        "additionalProperties": False,
        "required": ["count"],
        "properties": {
            "count": {"type": "integer", "minimum": 1},
            "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Part"}},
            "texts": {
                "anyOf": [
                    {"type": "array", "uniqueItems": True, "items": {"$ref": "#/components/schemas/Text"}},
                    {"type": "null"},
                ]
            },
            "metadata": {"$ref": "#/components/schemas/Metadata"},
        },
    },
    "Metadata": {
        "type": "object",
        "maxProperties": 3,
        "propertyNames": {"type": "string", "maxLength": 2, "pattern": "^[^:]*$"},
        "additionalProperties": {"type": "array", "items": {"type": "integer"}},
        "properties": {"a": {"type": "string"}},
    },
    "Root": {
        "allOf": [{"$ref": "#/components/schemas/Part"}],
        "not": {"required": ["texts", "metadata"]},
    },
}


def compile_schema(schemas: dict[str, Any], name: str) -> RequestSchema:
    compiler = SchemaCompiler(Document({"components": {"schemas": schemas}}))
    return compiler.compile_request({"$ref": f"#/components/schemas/{name}"})


RECURSIVE = compile_schema(MINI, "Root")
NAMES = ("count", "parts", "texts", "metadata", "a", "b:", "long", "x")
VALUES = st.recursive(
    st.sampled_from([None, 0, 1, 2, "a", "long", True]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)
PARTS = st.recursive(
    st.fixed_dictionaries({"count": st.integers(0, 2)}),
    lambda parts: st.fixed_dictionaries(
        {"count": st.integers(0, 2) | VALUES},
        optional={
            "parts": st.lists(parts, max_size=3) | VALUES,
            "texts": st.lists(st.sampled_from(["a", "b", "long", 1]), max_size=3) | VALUES,
            "metadata": st.dictionaries(st.sampled_from(NAMES), st.lists(VALUES, max_size=2)) | VALUES,
            "x": VALUES,
        },
    ),
    max_leaves=8,
)


@given(PARTS | VALUES)
@settings(max_examples=200, deadline=None)
def test_the_pieces_of_a_value_have_the_errors_of_the_whole(value: Any) -> None:
    found = Counter(
        each for error, location, _ in RECURSIVE.find_errors(value) for each in list_places(error, location)
    )
    expected = Counter(each for error in RECURSIVE.whole.iter_errors(value) for each in list_places(error))
    assert found == expected


def list_places(
    error: jsonschema_rs.ValidationError, location: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the place and keyword of an error: of those of X in place of "is neither X nor null"."""
    if error.kind.name == "anyOf":
        for inner in error.kind.context[0]:  # type: ignore[attr-defined]  # every kind has its own
            yield from list_places(inner, location)
    else:
        yield (*location, *error.instance_path), error.kind.name


def find_units(schema: Any) -> list[Any]:
    """Return the schemas in a schema after its split that allow any number of errors."""
    if isinstance(schema, list):
        return [unit for part in schema for unit in find_units(part)]
    if not isinstance(schema, dict):
        return []
    is_unit = (
        "propertyNames" in schema
        or isinstance(schema.get("items"), dict)
        or isinstance(schema.get("additionalProperties"), dict)
    )
    parts = [
        *schema.get("properties", {}).values(),
        *(schema.get(word) for word in ("allOf", "anyOf", "oneOf", "not")),
    ]
    return [schema] * is_unit + [unit for part in parts for unit in find_units(part)]


def test_every_list_and_map_of_a_request_is_validated_entry_by_entry() -> None:
    definitions = {name: translate(schema, "request") for name, schema in SCHEMAS.items()}
    found = {}
    for place, schema in list_schemas(CONTRACT, request_roots(CONTRACT)):
        own, _ = split_schema(translate(schema, "request"), definitions)
        if units := find_units(own):
            found[place] = units
    assert found == {}


BATCHES = ("ProductBatch", "ShotBatch", "PredictionBatch")


@pytest.mark.parametrize("name", BATCHES)
def test_the_items_of_a_list_that_is_too_long_are_not_validated(name: str) -> None:
    schema = compile_schema(SCHEMAS, name)
    violations = find_quickly(schema, {"items": [{}] * 501})
    assert violations == [
        {
            "loc": ["body", "items"],
            "msg": "Must have at most 500 items",
            "type": "too_long",
            "ctx": {"max_length": 500},
            "pointer": "/items",
        }
    ]


def find_quickly(schema: RequestSchema, value: Any) -> list[dict[str, Any]]:
    """Return the violations of a value; fail if finding them takes too long."""
    for _ in range(MAX_ATTEMPTS):
        start = time.thread_time()
        violations = find_violations(schema, value, ("body",))
        seconds = time.thread_time() - start
        # Another process can slow this one down for a moment.
        if seconds <= MAX_SECONDS:
            return [violation.to_dict() for violation in violations]
    pytest.fail(f"{len(violations)} violations after {seconds} seconds of CPU")


@pytest.mark.parametrize("name", BATCHES)
def test_an_item_without_a_known_action_has_one_violation(name: str) -> None:
    schema = compile_schema(SCHEMAS, name)
    actions = list(SCHEMAS[name]["properties"]["items"]["items"]["discriminator"]["mapping"])
    items: list[Any] = [{}, {"action": "copy", "extra": 1}, 5, {"action": [1]}, {"action": None}]
    assert [
        (violation["pointer"], violation["type"], violation.get("ctx"))
        for violation in find_quickly(schema, {"items": items})
    ] == [
        ("/items/0/action", "missing", None),
        ("/items/1/action", "enum", {"expected": actions}),
        ("/items/2", "dict_type", None),
        ("/items/3/action", "enum", {"expected": actions}),
        ("/items/4/action", "enum", {"expected": actions}),
    ]


def test_violations_are_complete_up_to_their_limit() -> None:
    schema = compile_schema(SCHEMAS, "ProductBatch")
    wrong = {f"k{number}": 1 for number in range(50)}
    items = [new_item(metadata=wrong) for _ in range(30)]
    expected = [f"/items/{index}/body/metadata/{name}" for index in range(30) for name in wrong]
    few = find_quickly(schema, {"items": items[:19], "extra": 1})
    assert [violation["pointer"] for violation in few] == ["/extra", *expected[: 19 * 50]]
    many = find_quickly(schema, {"items": items})
    assert [violation["pointer"] for violation in many] == expected[:MAX_VIOLATIONS]


def test_an_item_that_is_wrong_among_many_is_found() -> None:
    items: list[Any] = [new_item(metadata={f"k{number}": "x" for number in range(50)})] * 499 + [
        new_item(name=5)
    ]
    (violation,) = find_quickly(compile_schema(SCHEMAS, "ProductBatch"), {"items": items})
    assert (violation["pointer"], violation["type"]) == ("/items/499/body/name", "string_type")


# `tests/security/test_resource_use.py` has more, as requests.
WORST: dict[str, Callable[[], Any]] = {
    # Each error held a copy of the map: 24,000 of them took gigabytes.
    "one map of wrong names": lambda: [new_item(metadata={f"k:{number}": "x" for number in range(3_000)})],
    "one object of unknown names": lambda: [
        new_item(**{f"description{number}": 1 for number in range(40_000)})
    ],
    "too many images each": lambda: [new_item(images=[{"url": 5, "x": 1}] * 40) for _ in range(500)],
}


@pytest.mark.parametrize("kind", WORST)
def test_the_time_for_violations_has_a_limit(kind: str) -> None:
    violations = find_quickly(compile_schema(SCHEMAS, "ProductBatch"), {"items": WORST[kind]()})
    assert 500 <= len(violations) <= MAX_VIOLATIONS


def test_alternatives_without_a_tag_are_validated_as_a_whole() -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    schemas = {"Either": {"type": "object", "properties": {"value": {"oneOf": [numbers, numbers]}}}}
    schema = compile_schema(schemas, "Either")
    (violation,) = find_violations(schema, {"value": [1]}, ("body",))
    assert (violation.loc, violation.type) == (("body", "value"), "no_match")


def test_a_value_that_only_the_whole_schema_rejects_is_not_accepted() -> None:
    schema = RequestSchema(
        whole=jsonschema_rs.Draft202012Validator(False), own=jsonschema_rs.Draft202012Validator(True)
    )
    (violation,) = find_violations(schema, {}, ("body",))
    assert violation.to_dict() == {
        "loc": ["body"],
        "msg": "Does not match the contract",
        "type": "invalid",
        "pointer": "",
    }
