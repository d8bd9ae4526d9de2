"""Compile schemas of OpenAPI 3.1 to validators of JSON Schema 2020-12 (jsonschema-rs).

All schemas are compiled at start. Equal schemas share one validator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, Literal

import jsonschema_rs

from handlers.contract.document import Document
from handlers.contract.errors import ContractError
from handlers.contract.request_schema import (
    DEFINITIONS,
    ChoicePart,
    ListPart,
    MapPart,
    RequestSchema,
    SplitChoice,
    SplitList,
    SplitPart,
    list_property_names,
    split_schema,
)

Direction = Literal["request", "response", "open response"]
"""What a schema describes. An open response may have unknown values of enumerations that may grow."""

EXTENSIBLE = "x-extensible-enum"
"""The known values of an enumeration in responses, which a later release may extend."""
PATTERN_MESSAGES = "x-pattern-messages"
"""What a value must be that does not match a pattern, one sentence for each pattern of requests."""

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
    "open response": {},
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
    In requests, `readOnly` properties are forbidden; in responses, `writeOnly` ones. A response has the known
    values of an extensible enumeration, an open response any text.
    """
    if isinstance(schema, list):
        return [translate(part, direction, is_part=is_part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": schema["$ref"].replace(_REFERENCE, DEFINITIONS)}
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
    if direction == "response" and EXTENSIBLE in schema:
        translated["enum"] = schema[EXTENSIBLE]
    _apply_integer_bits(schema, translated)
    _apply_read_write_only(schema, translated, direction)
    if direction != "request":
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


class ResponseSchema:
    """A compiled part of a response.

    Args:
        strict: The validator of what the contract lists.
        compile_open: Compiles the validator that also accepts unknown values of extensible enumerations.
    """

    def __init__(
        self, strict: jsonschema_rs.Validator, compile_open: Callable[[], jsonschema_rs.Validator]
    ) -> None:
        self.strict, self._compile_open = strict, compile_open

    # Compiled when it is needed: beside a newer release, or never.
    @cached_property
    def open(self) -> jsonschema_rs.Validator:
        """The validator that also accepts unknown values of extensible enumerations."""
        return self._compile_open()


class SchemaCompiler:
    """Compiles the schemas of one document, each once per direction."""

    def __init__(self, document: Document) -> None:
        self._pattern_messages: dict[str, str] = document.spec.get(PATTERN_MESSAGES, {})
        self._components: dict[str, Any] = document.spec.get("components", {}).get("schemas", {})
        self._definitions: dict[Direction, dict[str, Any]] = {}
        self._validators: dict[tuple[str, str], jsonschema_rs.Validator] = {}
        self._request_schemas: dict[str, RequestSchema] = {}

    def compile_response(self, schema: dict[str, Any]) -> ResponseSchema:
        """Return the compiled schema of a part of a response.

        Raises:
            ContractError: The schema is invalid.
        """
        return ResponseSchema(
            self._compile(translate(schema, "response"), "response"),
            lambda: self._compile(translate(schema, "open response"), "open response"),
        )

    def compile_request(self, schema: dict[str, Any]) -> RequestSchema:
        """Return the compiled schema of a part of a request, split at lists and maps.

        Raises:
            ContractError: The schema is invalid.
        """
        return self._compile_split(translate(schema, "request"))

    def _compile_split(self, translated: Any) -> RequestSchema:
        key = json.dumps(translated, sort_keys=True)
        if key in self._request_schemas:
            return self._request_schemas[key]
        own, parts = split_schema(translated, self._define("request"))
        compiled = RequestSchema(
            whole=self._compile(translated, "request"),
            own=self._compile(own, "request"),
            names=list_property_names(self._add_definitions(own, "request")),
            pattern_messages=self._pattern_messages,
        )
        # Known before its parts are compiled: a schema can be that of its own entries.
        self._request_schemas[key] = compiled
        compiled.parts = [self._compile_part(part) for part in parts]
        return compiled

    def _compile_part(self, part: SplitPart) -> ListPart | MapPart | ChoicePart:
        if isinstance(part, SplitList):
            return ListPart(part.path, self._compile_split(part.entries), part.max_items)
        if isinstance(part, SplitChoice):
            branches = {text: self._compile_split(branch) for text, branch in part.branches.items()}
            return ChoicePart(part.path, part.tag, branches)
        return MapPart(
            part.path,
            None if part.members is None else self._compile_split(part.members),
            None if part.names is None else self._compile({"propertyNames": part.names}, "request"),
            part.listed,
        )

    def _define(self, direction: Direction) -> dict[str, Any]:
        """Return the translated components by name."""
        if direction not in self._definitions:
            self._definitions[direction] = {
                name: translate(schema, direction) for name, schema in self._components.items()
            }
        return self._definitions[direction]

    def _add_definitions(self, translated: Any, direction: Direction) -> Any:
        """Return a translated schema with the components that it refers to."""
        definitions = self._define(direction)
        names = _list_references(translated, definitions)
        if not names:
            return translated
        return {"$defs": {name: definitions[name] for name in names}, "allOf": [translated]}

    def _compile(self, translated: Any, direction: Direction) -> jsonschema_rs.Validator:
        key = (direction, json.dumps(translated, sort_keys=True))
        if key not in self._validators:
            self._validators[key] = self._build(self._add_definitions(translated, direction), direction)
        return self._validators[key]

    def _build(self, schema: Any, direction: Direction) -> jsonschema_rs.Validator:
        try:
            return jsonschema_rs.Draft202012Validator(
                schema,
                formats=_FORMATS[direction],
                validate_formats=True,
                offline=True,
                # Mismatches of responses are logged; the log must not have values of users.
                mask=None if direction == "request" else "the value",
            )
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise ContractError(f"a schema of the contract does not compile: {error}") from error


def _list_references(schema: Any, definitions: Mapping[str, Any]) -> list[str]:
    """Return the names of the definitions that a schema refers to, directly or indirectly."""
    # Only these are passed to the validator: compiling all components for each schema would be slow.
    names: dict[str, None] = {}
    pending = [schema]
    while pending:
        node = pending.pop()
        if not isinstance(node, dict):
            pending.extend(node if isinstance(node, list) else ())
            continue
        pending.extend(node.values())
        name = str(node.get("$ref", "")).removeprefix(DEFINITIONS)
        if name in definitions and name not in names:
            names[name] = None
            pending.append(definitions[name])
    return list(names)
