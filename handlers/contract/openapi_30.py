"""Derive the OpenAPI 3.0.3 form of an OpenAPI 3.1 document, for tools that do not read 3.1.

Both describe the same API. An object or an enumeration that can be null is a component `NullableX`, because
tools ignore `nullable` beside a reference. OpenAPI 3.0 has no webhooks, so they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any

from handlers.contract.errors import ContractError
from handlers.contract.json_pointer import join_pointer, split_pointer

Node = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_NULL = {"type": "null"}
# Their values are data, not parts of the document.
_DATA = frozenset({"example", "examples", "default", "enum"})
_UNKNOWN = frozenset(
    {
        "$defs", "contains", "contentEncoding", "contentMediaType", "dependentRequired", "dependentSchemas",
        "else", "if", "jsonSchemaDialect", "patternProperties", "prefixItems", "then",
        "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip

# A description says the same: without the keyword, clients only check less themselves.
_LEFT_OUT = frozenset({"propertyNames"})


def to_openapi_30(document: Node) -> Node:
    """Return the document as OpenAPI 3.0.3. The original is not changed.

    Raises:
        ContractError: A schema says something that 3.0 cannot say. The message has its place.
    """
    converter = _Converter()
    root = {name: part for name, part in document.items() if name != "webhooks"}
    converted: Node = converter.convert({**root, "openapi": "3.0.3"}, ())
    schemas = converted.get("components", {}).get("schemas", {})
    # A component can refer to others that can be null, so the list may grow.
    for name in converter.nullable:
        schemas[f"Nullable{name}"] = converter.make_nullable(name, schemas[name])
    _remove_unused(converted)
    return converted


class _Converter:
    """Converts the parts of a document, and collects the names of the components that can be null."""

    def __init__(self) -> None:
        self.nullable: list[str] = []

    def convert(self, node: Any, place: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [self.convert(part, (*place, str(index))) for index, part in enumerate(node)]
        if not isinstance(node, dict):
            return node
        if place[-1:] == ("properties",):
            # The keys are names of properties, not keywords.
            return {name: self.convert(part, (*place, name)) for name, part in node.items()}
        if unknown := sorted(_UNKNOWN & node.keys()):
            raise _not_in_30(place, f"the keyword {unknown[0]}")
        if node == _NULL:
            raise _not_in_30(place, "a value that is always null")
        node = self._convert_null({key: part for key, part in node.items() if key not in _LEFT_OUT}, place)
        converted = {
            key: part if key in _DATA else self.convert(part, (*place, key)) for key, part in node.items()
        }
        if "const" in converted:
            converted["enum"] = [converted.pop("const")]
        for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if exclusive in converted:
                if bound in converted:
                    raise _not_in_30(place, f"{exclusive} beside {bound}")
                converted[bound], converted[exclusive] = converted[exclusive], True
        return converted

    def _convert_null(self, schema: Node, place: tuple[str, ...]) -> Node:
        """Return a schema that says in the words of 3.0 that it can be null."""
        kind = schema.get("type")
        if isinstance(kind, list):
            types = [name for name in kind if name != "null"]
            if len(types) != 1:
                raise _not_in_30(place, f"the type {kind}")
            nullable = {"nullable": True} if len(types) < len(kind) else {}
            return {**schema, "type": types[0], **nullable}
        branches = schema.get("anyOf", ())
        if _NULL not in branches:
            return schema
        reference = branches[0].get("$ref", "")
        if len(branches) != 2 or not reference.startswith(_SCHEMAS):
            raise _not_in_30(place, "anyOf with null and no single component")
        name = reference.removeprefix(_SCHEMAS)
        twin = self._refer_to_twin(name)
        annotations = {key: part for key, part in schema.items() if key != "anyOf"}
        return {"allOf": [twin], **annotations} if annotations else twin

    def _refer_to_twin(self, name: str) -> Node:
        if name not in self.nullable:
            self.nullable.append(name)
        return {"$ref": f"{_SCHEMAS}Nullable{name}"}

    def make_nullable(self, name: str, schema: Node) -> Node:
        """Return a copy of a component that can be null. A title would be a second name for generators."""
        if "type" not in schema or "nullable" in schema:
            raise _not_in_30(
                ("components", "schemas", name), "a component without a single type that can be null"
            )
        copy = {key: part for key, part in schema.items() if key != "title"}
        if "oneOf" in copy:
            # Null must match exactly one of the branches, which are components with a type of their own.
            first, *others = copy["oneOf"]
            copy["oneOf"] = [self._refer_to_twin(first["$ref"].removeprefix(_SCHEMAS)), *others]
            del copy["type"]
            return copy
        copy["nullable"] = True
        if "enum" in copy:
            copy["enum"] = [*copy["enum"], None]
        return copy


def _list_references(node: Any) -> Iterator[str]:
    if isinstance(node, str) and node.startswith("#/components/"):
        yield node
    elif isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _list_references(part)


def _add_used(document: Node, node: Any, used: set[str]) -> None:
    """Add the references of a node to components, and those of the components, to a set."""
    for reference in _list_references(node):
        if reference not in used:
            used.add(reference)
            _add_used(document, reduce(getitem, split_pointer(reference), document), used)


def _remove_unused(document: Node) -> None:
    """Remove components that only webhooks used, or that are only used where they can be null."""
    used: set[str] = set()
    _add_used(document, {**document, "components": None}, used)
    components = document.get("components", {})
    for kind in components.keys() - {"securitySchemes"}:
        components[kind] = {
            name: part
            for name, part in components[kind].items()
            if f"#{join_pointer(['components', kind, name])}" in used
        }


def _not_in_30(place: tuple[str, ...], what: str) -> ContractError:
    return ContractError(f"OpenAPI 3.0 cannot say {what}: #{join_pointer(place)}")
