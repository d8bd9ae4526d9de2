"""Validate every example of the contract against its schema, with a third-party validator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openapi_schema_validator import OAS31Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.contract.operations import CONTRACT, resolve

BASE_URI = "urn:contract"
SCHEMA_KEYWORDS = ("type", "allOf", "anyOf", "oneOf")
REGISTRY: Registry[Any] = Registry().with_resource(BASE_URI, DRAFT202012.create_resource(CONTRACT))


def list_examples(node: Any, place: str = "#") -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield the JSON pointer, schema and example of every schema, parameter and body that has one."""
    if isinstance(node, list):
        for number, child in enumerate(node):
            yield from list_examples(child, f"{place}/{number}")
    if not isinstance(node, dict):
        return
    for name, example in node.get("examples", {}).items() if "schema" in node else ():
        yield f"{place}/examples/{name}", node["schema"], resolve(example)["value"]
    if "example" in node and "schema" in node:
        yield place, node["schema"], node["example"]
    elif "example" in node and any(isinstance(node.get(word), (str, list)) for word in SCHEMA_KEYWORDS):
        yield place, node, node["example"]
    for name, child in node.items():
        if name != "example":
            yield from list_examples(child, f"{place}/{name}")


def list_invalid_examples() -> list[str]:
    """Return every example that does not match its schema, with its JSON pointer and the error."""
    invalid = []
    for place, schema, example in list_examples(CONTRACT):
        validator = OAS31Validator(with_absolute_references(schema), registry=REGISTRY)
        invalid += [f"{place}: {error.message}" for error in validator.iter_errors(example)]
    return invalid


def with_absolute_references(node: Any) -> Any:
    """Return a copy of a schema whose references start with the URI of the contract."""
    if isinstance(node, list):
        return [with_absolute_references(child) for child in node]
    if isinstance(node, dict):
        return {
            name: BASE_URI + child
            # A mapping of a discriminator has references without `$ref`.
            if isinstance(child, str) and child.startswith("#/components/")
            else with_absolute_references(child)
            for name, child in node.items()
        }
    return node
