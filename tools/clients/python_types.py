"""Turn schemas of the contract into Python types. It knows neither files nor operations.

Each schema of the contract has a name, so a type is either simple or a reference to a class of one of three
modules: `enums` (literals), `models` (pydantic, what the server returns) and `params` (typed dictionaries,
what a caller sends).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Schema = dict[str, Any]
Direction = Literal["response", "request"]

SIMPLE = {"integer": "int", "number": "float", "boolean": "bool", "null": "None"}
OPEN_ENUM = "x-extensible-enum"
"""The known values of a text in responses."""
DATES = {"date-time": "dt.datetime", "date": "dt.date"}


class UnknownSchema(Exception):
    """A schema uses a keyword in a way that this module does not know. The message has the schema."""


@dataclass(frozen=True)
class Types:
    """The types of one contract."""

    schemas: dict[str, Schema]

    def annotate(self, schema: Schema, direction: Direction) -> str:
        """Return the annotation of a schema, for example `list[models.Product] | None`."""
        return " | ".join(dict.fromkeys(self._members(schema, direction)))

    def _members(self, schema: Schema, direction: Direction) -> Iterator[str]:
        if "$ref" in schema:
            yield from self._reference(schema["$ref"].rpartition("/")[2], direction)
        elif "anyOf" in schema or "oneOf" in schema:
            for choice in schema.get("anyOf") or schema["oneOf"]:
                yield from self._members(choice, direction)
            if "discriminator" in schema and direction == "response":
                yield "UnknownModel"  # a kind of resource that is newer than the client
        elif "allOf" in schema and "properties" not in schema:
            (only,) = schema["allOf"]
            yield from self._members(only, direction)
        elif is_enum(schema):
            yield literal(schema)
            if direction == "response":
                yield "str"
        elif "type" not in schema:
            yield "Any"
        else:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            for kind in kinds:
                yield self._of_kind(kind, schema, direction)

    def _of_kind(self, kind: str, schema: Schema, direction: Direction) -> str:
        if kind in SIMPLE:
            return SIMPLE[kind]
        if kind == "string":
            form = schema.get("format", "")
            if form == "binary":
                return "FileInput"
            # The core sends a date in the form of RFC 3339, and a caller may have it as text already.
            return DATES.get(form, "str") + (" | str" if form in DATES and direction == "request" else "")
        if kind == "array":
            outer = "list" if direction == "response" else "Sequence"
            return f"{outer}[{self.annotate(schema['items'], direction)}]"
        if kind == "object" and not schema.get("properties"):
            values = schema.get("additionalProperties")
            inner = self.annotate(values, direction) if isinstance(values, dict) and values else "Any"
            return f"{'dict' if direction == 'response' else 'Mapping'}[str, {inner}]"
        raise UnknownSchema(str(schema))

    def _reference(self, name: str, direction: Direction) -> Iterator[str]:
        schema = self.schemas[name]
        if is_enum(schema):
            yield f"enums.{name}"
            if direction == "response":
                yield "str"  # a member that is newer than the client
        elif is_class(schema):
            yield f"{'models' if direction == 'response' else 'params'}.{name}"
        else:
            yield from self._members(schema, direction)

    def reachable(self, roots: Iterable[Any]) -> list[str]:
        """Return the names of all schemas that these parts of the contract refer to, sorted."""
        found: set[str] = set()
        waiting = list(roots)
        while waiting:
            for name in set(references(waiting.pop())) - found:
                found.add(name)
                waiting.append(self.schemas[name])
        return sorted(found)


def is_enum(schema: Schema) -> bool:
    """Return whether a named schema becomes a type alias of literals."""
    return "enum" in schema or OPEN_ENUM in schema


def is_class(schema: Schema) -> bool:
    """Return whether a named schema becomes a class."""
    return bool(schema.get("properties"))


def literal(schema: Schema) -> str:
    """Return the type of an enum."""
    return f"Literal[{', '.join(repr(value) for value in schema.get('enum') or schema[OPEN_ENUM])}]"


def references(part: Any) -> Iterator[str]:
    """Return the names of the schemas that a part of the contract refers to itself."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref" and isinstance(value, str) and value.startswith("#/components/schemas/"):
                yield value.rpartition("/")[2]
            elif key not in ("example", "examples", "discriminator"):
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)
