"""The parts of an operation that a request can use: itself, its parameters, its deprecated properties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from handlers.contract.deprecation import REPLACEMENT, UNTIL, parse_time
from handlers.contract.document import Document, RawOperation

_ANY = "*"
"""The step of a path to each item of an array, or to each value of a map."""

Path = tuple[str, ...]


class PartKind(StrEnum):
    """What a part of an operation is."""

    OPERATION = "operation"
    PARAMETER = "parameter"
    PROPERTY = "property"


class Part(NamedTuple):
    """A part of an operation.

    `name` is that of the query parameter or header, or the path of the property in the body: "looks/*/name".
    It is empty for the operation. Path parameters are no parts, because every request has all of them.
    """

    operation_id: str
    kind: PartKind
    name: str


class Deprecated(NamedTuple):
    """What the contract says about a deprecated part.

    Attributes:
        sunset_at: When it ends; None if it does not end within this version.
        replacement: What replaces it, a name or a sentence.
    """

    sunset_at: datetime | None
    replacement: str | None


def find_deprecated_parts(document: Document) -> dict[Part, Deprecated]:
    """Return the deprecated parts of all operations."""
    return {
        part: Deprecated(node.get(UNTIL) and parse_time(node[UNTIL]), node.get(REPLACEMENT))
        for raw in document.operations()
        for part, node in _list_parts(document, raw)
        if node.get("deprecated")
    }


def list_deprecated_properties(document: Document, raw: RawOperation) -> list[Path]:
    """Return the paths of the deprecated properties in the body of an operation."""
    return [path for path, _ in _find_properties(document, raw)]


def find_used_properties(operation_id: str, paths: Sequence[Path], body: Any) -> list[Part]:
    """Return the properties with these paths that a body has."""
    used = (path for path in paths if _has(body, path))
    return [Part(operation_id, PartKind.PROPERTY, "/".join(path)) for path in used]


def _list_parts(document: Document, raw: RawOperation) -> Iterator[tuple[Part, dict[str, Any]]]:
    yield Part(raw.operation_id, PartKind.OPERATION, ""), raw.definition
    for parameter in raw.parameters:
        yield Part(raw.operation_id, PartKind.PARAMETER, parameter["name"]), parameter
    for path, node in _find_properties(document, raw):
        yield Part(raw.operation_id, PartKind.PROPERTY, "/".join(path)), node


def _find_properties(document: Document, raw: RawOperation) -> Iterator[tuple[Path, dict[str, Any]]]:
    body = document.resolve(raw.definition.get("requestBody", {}))
    for media_type in body.get("content", {}).values():
        yield from _find_below(document, media_type.get("schema", {}), (), frozenset())


def _find_below(
    document: Document, schema: dict[str, Any], path: Path, above: frozenset[str]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Return the deprecated properties below a schema and their paths; `above` are references to it."""
    reference = schema.get("$ref")
    if reference in above:
        return
    if reference is not None:
        schema, above = document.resolve(schema), above | {reference}
    for keyword in ("allOf", "anyOf", "oneOf"):
        for branch in schema.get(keyword, ()):
            yield from _find_below(document, branch, path, above)
    for name, node in schema.get("properties", {}).items():
        if node.get("deprecated"):
            yield (*path, name), node
        yield from _find_below(document, node, (*path, name), above)
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from _find_below(document, schema[keyword], (*path, _ANY), above)


def _has(value: Any, path: Path) -> bool:
    """Return whether a JSON value has a property."""
    if not path:
        return True
    name, rest = path[0], path[1:]
    if name == _ANY:
        values = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        return any(_has(each, rest) for each in values)
    return isinstance(value, dict) and name in value and _has(value[name], rest)
