"""Convert validated JSON values to Python types: UUID, aware datetime, date, int, float; fill in defaults.

A converter is compiled from a schema at start. Parts of a value that need no conversion cost nothing.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from handlers.contract.document import Document

Converter = Callable[[Any], Any]

# At most 19 digits, enough for 64 bits: int() takes quadratic time.
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?", re.ASCII)


def plain_type(schema: dict[str, Any]) -> str | None:
    """Return the `type` of a schema without "null": "string" for ["string", "null"]."""
    kind = schema.get("type")
    return next((name for name in kind if name != "null"), None) if isinstance(kind, list) else kind


def parse_text(kind: str | None, text: str) -> Any:
    """Return the text of a parameter or form field as a JSON value.

    Text that is not a value of this type (`1_0`, ` 5`, `True`, non-ASCII digits) stays text: the schema then
    rejects it.

    Args:
        kind: The `type` of the schema.
        text: The decoded text.
    """
    if kind == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "number" and _NUMBER.fullmatch(text):
        return float(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


def _to_utc(text: Any) -> Any:
    return datetime.fromisoformat(text).astimezone(UTC) if isinstance(text, str) else text


def _to_date(text: Any) -> Any:
    return date.fromisoformat(text) if isinstance(text, str) else text


def _to_uuid(text: Any) -> Any:
    return UUID(text) if isinstance(text, str) else text


def _to_integer(number: Any) -> Any:
    # In JSON Schema, 1.0 is an integer.
    return int(number) if isinstance(number, float) else number


def _to_number(number: Any) -> Any:
    # `bool` is a subclass of `int`.
    return float(number) if isinstance(number, int) and not isinstance(number, bool) else number


_BY_FORMAT: dict[str, Converter] = {"uuid": _to_uuid, "date-time": _to_utc, "date": _to_date}
_BY_TYPE: dict[str, Converter] = {"integer": _to_integer, "number": _to_number}


class ConverterCompiler:
    """Compiles converters for the schemas of one document."""

    def __init__(self, document: Document) -> None:
        self._resolve = document.resolve
        self._in_progress: dict[str, _Deferred] = {}

    def compile(self, schema: dict[str, Any], fill_defaults: bool) -> Converter | None:
        """Return the converter of a schema, or None if values stay as they are.

        Args:
            schema: A schema of OpenAPI 3.1.
            fill_defaults: Whether absent properties get the default of their schema.
        """
        reference = schema.get("$ref")
        if reference is None:
            return self._compile(schema, fill_defaults)
        # A schema that refers to itself gets a converter that is set once the schema is compiled.
        if reference in self._in_progress:
            self._in_progress[reference].used = True
            return self._in_progress[reference]
        deferred = self._in_progress[reference] = _Deferred()
        deferred.converter = self._compile(self._resolve(schema), fill_defaults)
        del self._in_progress[reference]
        return deferred if deferred.used else deferred.converter

    def _compile(self, schema: dict[str, Any], fill_defaults: bool) -> Converter | None:
        if "allOf" in schema:
            own = {name: part for name, part in schema.items() if name != "allOf"}
            parts = [self.compile(part, fill_defaults) for part in schema["allOf"]]
            return _chain([*parts, self._compile(own, fill_defaults)])
        if "anyOf" in schema or "oneOf" in schema:
            return self._compile_choice(schema.get("anyOf") or schema["oneOf"], fill_defaults)
        kind = plain_type(schema)
        if kind == "array":
            return _map_items(self.compile(schema.get("items", {}), fill_defaults))
        if kind == "object":
            return self._compile_object(schema, fill_defaults)
        return _BY_FORMAT.get(schema.get("format", "")) or _BY_TYPE.get(kind or "")

    def _compile_object(self, schema: dict[str, Any], fill_defaults: bool) -> Converter | None:
        converters: dict[str, Converter] = {}
        defaults: dict[str, Any] = {}
        for name, part in schema.get("properties", {}).items():
            converter = self.compile(part, fill_defaults)
            if converter is not None:
                converters[name] = converter
            resolved = self._resolve(part)
            if fill_defaults and "default" in resolved:
                defaults[name] = resolved["default"]
        if not converters and not defaults:
            return None

        def convert(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            for name, default in defaults.items():
                if name not in value:
                    # Copied: a handler may change the value, and the default is shared by all requests.
                    value[name] = copy.deepcopy(default)
            for name, converter in converters.items():
                if name in value:
                    value[name] = converter(value[name])
            return value

        return convert

    def _compile_choice(self, branches: list[dict[str, Any]], fill_defaults: bool) -> Converter | None:
        """Return a converter that uses the branch with a matching tag: a property with one allowed value."""
        compiled = [(self._tags(branch), self.compile(branch, fill_defaults)) for branch in branches]
        choices = [(tags, converter) for tags, converter in compiled if converter is not None]
        if not choices:
            return None

        def convert(value: Any) -> Any:
            for tags, converter in choices:
                if not tags or (
                    isinstance(value, dict) and all(value.get(name) == tag for name, tag in tags.items())
                ):
                    return converter(value)
            # Only branches that need no conversion are left.
            return value

        return convert

    def _tags(self, branch: dict[str, Any]) -> dict[str, Any]:
        properties = self._resolve(branch).get("properties", {})
        enums = {name: self._resolve(part).get("enum", ()) for name, part in properties.items()}
        return {name: values[0] for name, values in enums.items() if len(values) == 1}


class _Deferred:
    """The converter of a schema that refers to itself."""

    converter: Converter | None = None
    used = False

    def __call__(self, value: Any) -> Any:
        return value if self.converter is None else self.converter(value)


def _chain(converters: list[Converter | None]) -> Converter | None:
    needed = [converter for converter in converters if converter is not None]
    if not needed:
        return None

    def convert(value: Any) -> Any:
        for converter in needed:
            value = converter(value)
        return value

    return convert


def _map_items(converter: Converter | None) -> Converter | None:
    if converter is None:
        return None
    return lambda value: [converter(item) for item in value] if isinstance(value, list) else value
