"""What an operation may answer: each status with its media types, headers and bodies, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from handlers.contract.coercion import parse_text
from handlers.contract.document import Document, RawOperation
from handlers.contract.json_pointer import join_pointer
from handlers.contract.schema_compiler import SchemaCompiler

PROBLEM_JSON = "application/problem+json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class SchemaMismatch:
    """How an answer breaks the contract: which part of it, and in words that quote nothing of its body."""

    kind: str
    message: str

    def __str__(self) -> str:
        return self.message


class _Header:
    """One documented header of one response."""

    def __init__(
        self, name: str, raw: dict[str, Any], bundle: Document, schema_compiler: SchemaCompiler
    ) -> None:
        self.name = name
        self.required: bool = raw.get("required", False)
        schema = bundle.resolve(raw.get("schema") or {})
        self.kind = schema.get("type")
        self.validator = schema_compiler.compile(schema, "response")


@dataclass(frozen=True)
class _Events:
    """What the events of a stream are: their lines, and what `x-event-data` says about their data."""

    message: jsonschema_rs.Validator
    data: jsonschema_rs.Validator

    @classmethod
    def from_content(cls, content: dict[str, Any] | None, schema_compiler: SchemaCompiler) -> _Events | None:
        if content is None:
            return None
        schemas = (content["schema"], content["x-event-data"])
        return cls(*(schema_compiler.compile(schema, "response") for schema in schemas))


class _Response:
    """One documented status of an operation."""

    def __init__(self, raw: dict[str, Any], bundle: Document, schema_compiler: SchemaCompiler) -> None:
        self.headers = [
            _Header(name, bundle.resolve(header), bundle, schema_compiler)
            for name, header in raw.get("headers", {}).items()
        ]
        self.contents: dict[str, jsonschema_rs.Validator | None] = {
            media_type.lower(): (
                schema_compiler.compile(content["schema"], "response")
                if "schema" in content and media_type.lower().endswith("json")
                else None
            )
            for media_type, content in raw.get("content", {}).items()
        }
        self.events = _Events.from_content(raw.get("content", {}).get(EVENT_STREAM), schema_compiler)

    def find_mismatch(
        self, media_type: str, headers: Mapping[str, str], value: Any, raw: bytes | None
    ) -> SchemaMismatch | None:
        """Return the first way in which an answer breaks the contract; header names come in lower case."""
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
        validator = self.contents[media_type]
        return None if validator is None else _find_body_mismatch(validator, value, raw)


def _find_body_mismatch(
    validator: jsonschema_rs.Validator, value: Any, raw: bytes | None
) -> SchemaMismatch | None:
    if isinstance(value, bytes):
        return _find_bytes_mismatch(validator, value)
    try:
        if validator.is_valid(value):
            return None
    except ValueError:
        # Something that only the encoder knows, such as a UUID: the bytes tell what is sent.
        pass
    return _find_first_mismatch(validator, orjson.loads(raw or b"null"))


@lru_cache(maxsize=16)
def _find_bytes_mismatch(validator: jsonschema_rs.Validator, raw: bytes) -> SchemaMismatch | None:
    """Bytes that are made once and sent often, such as the contract itself, are checked once."""
    try:
        sent = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return SchemaMismatch("body", "the body is not JSON")
    return _find_first_mismatch(validator, sent)


def _find_first_mismatch(validator: jsonschema_rs.Validator, sent: Any) -> SchemaMismatch | None:
    for error in validator.iter_errors(sent):
        return SchemaMismatch("body", f"{join_pointer(error.instance_path) or '/'}: {error.message}")
    return None


class ResponseCompiler:
    """Compiles the responses of a contract; nine in ten are references to a few, which are compiled once."""

    def __init__(self, bundle: Document, schema_compiler: SchemaCompiler) -> None:
        self._bundle, self._schema_compiler = bundle, schema_compiler
        self._shared: dict[str, _Response] = {}

    def compile(self, raw: dict[str, Any]) -> _Response:
        """Return the response; operations that refer to the same one get the same one."""
        reference = raw.get("$ref")
        if reference is None:
            return _Response(raw, self._bundle, self._schema_compiler)
        if reference not in self._shared:
            self._shared[reference] = _Response(
                self._bundle.resolve(raw), self._bundle, self._schema_compiler
            )
        return self._shared[reference]


class Responses:
    """Everything that one operation may answer."""

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
        """Return whether the operation may answer with this status."""
        return status in self._by_status

    def find_mismatch(
        self, status: int, media_type: str, headers: Mapping[str, str], value: Any, raw: bytes | None
    ) -> SchemaMismatch | None:
        """Return how an answer breaks the contract, None when it keeps it.

        `value` is the body before it was encoded, `raw` the encoded one; raw is None for files, of which
        status, media type and headers are checked. Header names come in lower case.
        """
        response = self._by_status.get(status)
        if response is None:
            return SchemaMismatch("status", f"the status {status} is not documented")
        return response.find_mismatch(media_type, headers, value, raw)

    def find_event_mismatch(
        self, status: int, event: Mapping[str, str], data: bytes
    ) -> SchemaMismatch | None:
        """Return how a server-sent event breaks the contract, None when it keeps it.

        `told` is the event by its lines, `data` once more the bytes of its data.
        """
        events = self._by_status[status].events
        if events is None:
            return SchemaMismatch("media_type", "events are not documented")
        return _find_body_mismatch(events.message, dict(event), None) or _find_body_mismatch(
            events.data, orjson.loads(data), data
        )
