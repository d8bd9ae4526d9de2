"""The documented responses of an operation: statuses, media types, headers and bodies, compiled.

Used to check every response before it is sent. Mismatches never quote the body, because they are logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from handlers.contract.coercion import parse_text
from handlers.contract.document import Document, RawOperation
from handlers.contract.json_pointer import join_pointer
from handlers.contract.schema_compiler import ResponseSchema, SchemaCompiler

PROBLEM_JSON = "application/problem+json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class SchemaMismatch:
    """How a response differs from the contract. `kind` is the part: status, media_type, header or body.

    `has_unknown_value` means that extensible enumerations do not list its values, and nothing else differs: a
    newer release has written them, and clients expect such values.
    """

    kind: str
    message: str
    has_unknown_value: bool = False

    def __str__(self) -> str:
        return self.message


class _Header:
    """A documented header of a response."""

    def __init__(
        self, name: str, raw: dict[str, Any], document: Document, schema_compiler: SchemaCompiler
    ) -> None:
        self.name = name
        self.required: bool = raw.get("required", False)
        schema = document.resolve(raw.get("schema") or {})
        self.kind = schema.get("type")
        self.validator = schema_compiler.compile_response(schema).strict


@dataclass(frozen=True)
class _Events:
    """The schemas of server-sent events: of their fields, and of their data (`x-event-data`)."""

    message: ResponseSchema
    data: ResponseSchema

    @classmethod
    def from_content(cls, content: dict[str, Any] | None, schema_compiler: SchemaCompiler) -> _Events | None:
        if content is None:
            return None
        schemas = (content["schema"], content["x-event-data"])
        return cls(*(schema_compiler.compile_response(schema) for schema in schemas))


class _Response:
    """A documented status of an operation."""

    def __init__(self, raw: dict[str, Any], document: Document, schema_compiler: SchemaCompiler) -> None:
        self.headers = [
            _Header(name, document.resolve(header), document, schema_compiler)
            for name, header in raw.get("headers", {}).items()
        ]
        self.contents: dict[str, ResponseSchema | None] = {
            media_type.lower(): (
                schema_compiler.compile_response(content["schema"])
                # Files, HTML and event streams have no JSON to validate.
                if "schema" in content and media_type.lower().endswith("json")
                else None
            )
            for media_type, content in raw.get("content", {}).items()
        }
        self.events = _Events.from_content(raw.get("content", {}).get(EVENT_STREAM), schema_compiler)

    def find_mismatch(
        self, media_type: str, headers: Mapping[str, str], value: Any, raw: bytes | None
    ) -> SchemaMismatch | None:
        """Return the first difference from the contract, or None. Header names are in lower case."""
        for header in self.headers:
            text = headers.get(header.name.lower())
            if text is None:
                if header.required:
                    return SchemaMismatch("header", f"the header {header.name} is missing")
            elif not header.validator.is_valid(parse_text(header.kind, text)):
                return SchemaMismatch("header", f"the header {header.name} has the value {text!r}")
        if not self.contents:
            return SchemaMismatch("body", "a body that is not documented") if raw else None
        media_type = media_type.partition(";")[0].strip().lower()
        if media_type not in self.contents:
            return SchemaMismatch("media_type", f"the media type {media_type!r} is not documented")
        schema = self.contents[media_type]
        return None if schema is None else _find_body_mismatch(schema, value, raw)


def _find_body_mismatch(schema: ResponseSchema, value: Any, raw: bytes | None) -> SchemaMismatch | None:
    if isinstance(value, bytes):
        return _find_bytes_mismatch(schema, value)
    # `is_valid` is faster than collecting errors, and almost every response is valid.
    try:
        if schema.strict.is_valid(value):
            return None
    except ValueError:
        # The value has a type that only the encoder knows, such as UUID: check the encoded bytes instead.
        pass
    return _find_first_mismatch(schema, orjson.loads(raw or b"null"))


@lru_cache(maxsize=16)
def _find_bytes_mismatch(schema: ResponseSchema, raw: bytes) -> SchemaMismatch | None:
    # Cached: documents that are encoded once and sent often, such as the contract, are checked once.
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return SchemaMismatch("body", "the body is not JSON")
    return _find_first_mismatch(schema, value)


def _find_first_mismatch(schema: ResponseSchema, value: Any) -> SchemaMismatch | None:
    unknown = next(schema.strict.iter_errors(value), None)
    if unknown is None:
        return None
    error = next(schema.open.iter_errors(value), None)
    place = unknown if error is None else error
    message = f"{join_pointer(place.instance_path) or '/'}: {place.message}"
    return SchemaMismatch("body", message, has_unknown_value=error is None)


class ResponseCompiler:
    """Compiles responses. Nine in ten are references to a few shared ones, which are compiled once."""

    def __init__(self, document: Document, schema_compiler: SchemaCompiler) -> None:
        self._document, self._schema_compiler = document, schema_compiler
        self._shared: dict[str, _Response] = {}

    def compile(self, raw: dict[str, Any]) -> _Response:
        """Return the compiled response. Equal references return the same object."""
        reference = raw.get("$ref")
        if reference is None:
            return _Response(raw, self._document, self._schema_compiler)
        if reference not in self._shared:
            self._shared[reference] = _Response(
                self._document.resolve(raw), self._document, self._schema_compiler
            )
        return self._shared[reference]


class Responses:
    """All documented responses of an operation."""

    def __init__(self, compiler: ResponseCompiler, raw: RawOperation) -> None:
        self._by_status = {
            int(status): compiler.compile(response)
            for status, response in raw.definition["responses"].items()
        }
        self.media_types = frozenset(
            media_type
            for status, response in self._by_status.items()
            if status < 400
            for media_type in response.contents
        )

    def declares(self, status: int) -> bool:
        """Return whether the contract declares this status for the operation."""
        return status in self._by_status

    def find_mismatch(
        self, status: int, media_type: str, headers: Mapping[str, str], value: Any, raw: bytes | None
    ) -> SchemaMismatch | None:
        """Return the first difference between a response and the contract, or None.

        Args:
            status: The status code.
            media_type: The `Content-Type`; its parameters are ignored.
            headers: All response headers, with names in lower case.
            value: The body before encoding.
            raw: The encoded body, or None for files, whose content is not checked.
        """
        response = self._by_status.get(status)
        if response is None:
            return SchemaMismatch("status", f"the status {status} is not documented")
        return response.find_mismatch(media_type, headers, value, raw)

    def find_event_mismatch(
        self, status: int, event: Mapping[str, str], data: bytes
    ) -> SchemaMismatch | None:
        """Return the first difference between a server-sent event and the contract, or None.

        Args:
            status: The status of the response that the event belongs to.
            event: The fields of the event (`event`, `id`, `data`).
            data: The same data as `event["data"]`, as bytes.
        """
        events = self._by_status[status].events
        if events is None:
            return SchemaMismatch("media_type", "events are not documented")
        mismatch = _find_body_mismatch(events.message, dict(event), None)
        if mismatch is not None and not mismatch.has_unknown_value:
            return mismatch
        return _find_body_mismatch(events.data, orjson.loads(data), data) or mismatch
