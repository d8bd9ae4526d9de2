"""From checked plain values to what handlers work with: UUID, aware datetime, date, whole numbers, defaults.

A plan is compiled from a schema at start; a part of a value that needs no work costs nothing.
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

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?", re.ASCII)


def parse_text(kind: str | None, text: str) -> Any:
    """Return what a parameter or form field says as a JSON value; text that is no such value stays text.

    The schema then refuses it. `1_0`, ` 5`, other digits than 0 to 9 and `True` are text.
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
    # JSON Schema takes 1.0 for an integer, and so does the contract.
    return int(number) if isinstance(number, float) else number


def _to_number(number: Any) -> Any:
    return float(number) if isinstance(number, int) and not isinstance(number, bool) else number


_BY_FORMAT: dict[str, Converter] = {"uuid": _to_uuid, "date-time": _to_utc, "date": _to_date}
_BY_TYPE: dict[str, Converter] = {"integer": _to_integer, "number": _to_number}


class ConverterCompiler:
    """Compiles plans for the schemas of one bundle."""

    def __init__(self, bundle: Document) -> None:
        self._resolve = bundle.resolve
        self._in_progress: dict[str, _Deferred] = {}

    def compile(self, schema: dict[str, Any], fill_defaults: bool) -> Converter | None:
        """Return the plan of a schema, None where values stay as they are."""
        reference = schema.get("$ref")
        if reference is None:
            return self._compile(schema, fill_defaults)
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
        kind = schema.get("type")
        if kind == "array":
            return _map_items(self.compile(schema.get("items", {}), fill_defaults))
        if kind == "object":
            return self._compile_object(schema, fill_defaults)
        return _BY_FORMAT.get(schema.get("format", "")) or _BY_TYPE.get(kind or "")

    def _compile_object(self, schema: dict[str, Any], fill_defaults: bool) -> Converter | None:
        plans: dict[str, Converter] = {}
        defaults: dict[str, Any] = {}
        for name, part in schema.get("properties", {}).items():
            plan = self.compile(part, fill_defaults)
            if plan is not None:
                plans[name] = plan
            resolved = self._resolve(part)
            if fill_defaults and "default" in resolved:
                defaults[name] = resolved["default"]
        if not plans and not defaults:
            return None

        def convert(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            for name, default in defaults.items():
                if name not in value:
                    value[name] = copy.deepcopy(default)
            for name, plan in plans.items():
                if name in value:
                    value[name] = plan(value[name])
            return value

        return convert

    def _compile_choice(self, branches: list[dict[str, Any]], fill_defaults: bool) -> Converter | None:
        """Return a plan that takes the branch whose tag, a property with one allowed value, fits."""
        compiled = [(self._tags(branch), self.compile(branch, fill_defaults)) for branch in branches]
        choices = [(tags, converter) for tags, converter in compiled if converter is not None]
        if not choices:
            return None

        def convert(value: Any) -> Any:
            for tags, plan in choices:
                if not tags or (
                    isinstance(value, dict) and all(value.get(name) == tag for name, tag in tags.items())
                ):
                    return plan(value)
            return value

        return convert

    def _tags(self, branch: dict[str, Any]) -> dict[str, Any]:
        properties = self._resolve(branch).get("properties", {})
        enums = {name: self._resolve(part).get("enum", ()) for name, part in properties.items()}
        return {name: values[0] for name, values in enums.items() if len(values) == 1}


class _Deferred:
    """Stands for the plan of a schema that refers to itself."""

    converter: Converter | None = None
    used = False

    def __call__(self, value: Any) -> Any:
        return value if self.converter is None else self.converter(value)


def _chain(converters: list[Converter | None]) -> Converter | None:
    needed = [converter for converter in converters if converter is not None]
    if not needed:
        return None

    def convert(value: Any) -> Any:
        for plan in needed:
            value = plan(value)
        return value

    return convert


def _map_items(converter: Converter | None) -> Converter | None:
    if converter is None:
        return None
    return lambda value: [converter(item) for item in value] if isinstance(value, list) else value
