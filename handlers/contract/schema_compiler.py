"""Compile schemas of OpenAPI 3.1 to validators of JSON Schema 2020-12 (jsonschema-rs).

All schemas are compiled at start. Equal schemas share one validator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias

import jsonschema_rs

from handlers.contract.document import Document
from handlers.contract.errors import ContractError

Direction = Literal["request", "response"]

_REFERENCE = "#/components/schemas/"
_DROPPED_KEYWORDS = frozenset(
    {
        "discriminator",
        "xml",
        "example",
        "externalDocs",
        "deprecated",
        "readOnly",
        "writeOnly",
        "default",
        "description",
        "title",
    }
)
_INTEGER_BITS = {"int32": 31, "int64": 63}
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _is_date_time(text: str) -> bool:
    """Return whether Python accepts it. The library also accepts leap seconds, year 0000 and lower case."""
    try:
        return bool(_DATE_TIME.fullmatch(text) and datetime.fromisoformat(text).astimezone(UTC))
    except (ValueError, OverflowError):
        return False


def _is_date(text: str) -> bool:
    try:
        return bool(_DATE.fullmatch(text) and date.fromisoformat(text))
    except ValueError:
        return False


# Responses are formatted by Python, so only requests need these stricter, slower checks.
_FORMATS: dict[Direction, dict[str, Callable[[str], bool]]] = {
    "request": {"date-time": _is_date_time, "date": _is_date},
    "response": {},
}
# Patterns that forbid NUL, and the rest of each pattern. On long texts, searching for the one character takes
# a fifth of the time that matching each character takes.
_NUL_FREE_PATTERNS = {r"^[^\x00]*$": "", r"^https?://[^\x00]+$": r"^https?://[^\x00]"}


def translate(schema: Any, direction: Direction, *, is_part: bool = False) -> Any:
    """Return the schema as the validators need it, with references into `$defs`.

    The published schemas of responses allow properties that they do not list, so that v1 can add some. The
    server must not send them before the contract lists them: they could leak data (OWASP API3). So an object
    of a response has only the properties that its schema lists, unless it sets `additionalProperties`. The
    parts of `allOf` and `not` (`is_part`) describe an object only together, so they stay open.

    `format: binary` and the range of `format: int32` come from OpenAPI, so JSON Schema does not check them.
    In requests, `readOnly` properties are forbidden; in responses, `writeOnly` ones.
    """
    if isinstance(schema, list):
        return [translate(part, direction, is_part=is_part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": schema["$ref"].replace(_REFERENCE, "#/$defs/")}
    translated: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "properties":
            translated[keyword] = {name: translate(part, direction) for name, part in value.items()}
        elif keyword in ("allOf", "not"):
            translated[keyword] = translate(value, direction, is_part=True)
        elif keyword in ("items", "additionalProperties", "propertyNames", "anyOf", "oneOf"):
            translated[keyword] = translate(value, direction)
        elif keyword not in _DROPPED_KEYWORDS and not keyword.startswith("x-"):
            translated[keyword] = value
    _apply_integer_bits(schema, translated)
    _apply_read_write_only(schema, translated, direction)
    if direction == "response":
        # In requests, the original pattern stays: the error quotes it.
        _forbid_nul(schema, translated)
        if "properties" in schema and not is_part:
            translated.setdefault("additionalProperties", False)
    if schema.get("format") == "binary":
        # Bytes are not validated by a schema; a marker stands in for them.
        return {}
    return translated


def _apply_integer_bits(schema: dict[str, Any], translated: dict[str, Any]) -> None:
    bits = _INTEGER_BITS.get(schema.get("format", ""))
    if bits is not None:
        translated["minimum"] = max(translated.get("minimum", -(2**bits)), -(2**bits))
        translated["maximum"] = min(translated.get("maximum", 2**bits - 1), 2**bits - 1)


def _forbid_nul(schema: dict[str, Any], translated: dict[str, Any]) -> None:
    rest = _NUL_FREE_PATTERNS.get(schema.get("pattern", ""))
    if rest is not None and "not" not in schema:
        del translated["pattern"]
        if rest:
            translated["pattern"] = rest
        translated["not"] = {"type": "string", "pattern": "\\x00"}


def _apply_read_write_only(schema: dict[str, Any], translated: dict[str, Any], direction: Direction) -> None:
    """Forbid `readOnly` properties in requests and `writeOnly` ones in responses, and do not require them."""
    mark = "readOnly" if direction == "request" else "writeOnly"
    forbidden = {
        name
        for name, part in (schema.get("properties") or {}).items()
        if isinstance(part, dict) and part.get(mark)
    }
    if not forbidden:
        return
    for name in forbidden:
        translated["properties"][name] = False
    required = [name for name in schema.get("required", ()) if name not in forbidden]
    translated.pop("required", None)
    if required:
        translated["required"] = required


PropertyNames: TypeAlias = Mapping[tuple[str | int, ...], Sequence[str]]
"""The names of the properties of closed objects, by the place of `additionalProperties` in the schema."""


def _walk(node: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Yield each object within a schema with its path."""
    if isinstance(node, dict):
        yield path, node
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in members:
        yield from _walk(part, (*path, key))


class SchemaCompiler:
    """Compiles the schemas of one document, each once per direction."""

    def __init__(self, document: Document) -> None:
        self._components: dict[str, Any] = document.spec.get("components", {}).get("schemas", {})
        self._validators: dict[tuple[str, str], jsonschema_rs.Validator] = {}

    def compile(self, schema: dict[str, Any], direction: Direction) -> jsonschema_rs.Validator:
        """Return the validator of a schema.

        Raises:
            ContractError: The schema is invalid.
        """
        key = (direction, json.dumps(schema, sort_keys=True))
        if key not in self._validators:
            self._validators[key] = self._compile(schema, direction)
        return self._validators[key]

    def list_property_names(self, schema: dict[str, Any]) -> PropertyNames:
        """Return the properties of each closed object in the schema of a request, by their place in it.

        The places are those of the validator's errors: a component is under `$defs`.
        """
        return {
            (*path, "additionalProperties"): tuple(node.get("properties", ()))
            for path, node in _walk(self._translate(schema, "request"), ())
            if node.get("additionalProperties") is False
        }

    def _translate(self, schema: dict[str, Any], direction: Direction) -> Any:
        translated = translate(schema, direction)
        definitions = {name: translate(self._components[name], direction) for name in self._reachable(schema)}
        return {"$defs": definitions, "allOf": [translated]} if definitions else translated

    def _compile(self, schema: dict[str, Any], direction: Direction) -> jsonschema_rs.Validator:
        try:
            return jsonschema_rs.Draft202012Validator(
                self._translate(schema, direction),
                formats=_FORMATS[direction],
                validate_formats=True,
                offline=True,
                # Mismatches of responses are logged; the log must not have values of users.
                mask="the value" if direction == "response" else None,
            )
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise ContractError(f"a schema of the contract does not compile: {error}") from error

    def _reachable(self, schema: Any) -> list[str]:
        """Return the names of the components that a schema refers to, directly or indirectly."""
        # Only these are passed to the validator: compiling all components for each schema would be slow.
        names: dict[str, None] = {}
        pending = [schema]
        while pending:
            node = pending.pop()
            if not isinstance(node, dict):
                pending.extend(node if isinstance(node, list) else ())
                continue
            pending.extend(node.values())
            name = str(node.get("$ref", "")).removeprefix(_REFERENCE)
            if name in self._components and name not in names:
                names[name] = None
                pending.append(self._components[name])
        return list(names)
