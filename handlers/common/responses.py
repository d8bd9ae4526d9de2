"""What a handler returns: a status, a body that is not yet bytes, and headers.

An answer knows nothing about the contract; the endpoint serialises it, checks it and only then commits.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from flask import request
from marshmallow import Schema
from werkzeug.datastructures import Accept

from handlers.schemas.serializer import get_serializer
from studio.generations.watch import GenerationState

SANDBOX_CSP = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""The policy of bytes that people sent: whatever a browser takes them for, it runs nothing in them."""

NO_STORE = {"Cache-Control": "no-store"}
"""The header of answers that hold a secret."""

_JSON_OPTIONS = orjson.OPT_UTC_Z


@dataclass
class ApiResponse:
    """One response before it is checked and sent. `tagged` asks for a strong ETag over the body.

    `watch` is the generation that callers may wait for or follow. `packed` is the body as it is sent, where
    that is compressed; the body itself is what is checked.
    """

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    with_etag: bool = False
    watched_generation: GenerationState | None = None
    compressed_body: bytes | None = None


@dataclass(frozen=True)
class EncodedResponse:
    """An answer as it is sent, the media type apart from the other headers; no body for none or a file."""

    status: int
    media_type: str
    headers: dict[str, str]
    body: bytes | None


def serialize(row: object, schema: type[Schema]) -> dict[str, Any]:
    """Return one row as the outside sees it."""
    return get_serializer(schema)(row)


def serialize_many(rows: Iterable[object], schema: type[Schema]) -> list[dict[str, Any]]:
    """Return rows as the outside sees them."""
    return list(map(get_serializer(schema), rows))


def encode_json(value: object) -> bytes:
    """Return the bytes of a JSON answer: UTF-8, no white space, times in UTC with a Z."""
    return orjson.dumps(value, option=_JSON_OPTIONS)


def strong_etag(body: bytes) -> str:
    """Return the entity tag of an answer's bytes, quotes included (RFC 9110, 8.8.3)."""
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


def ok(row: object, schema: type[Schema], watched_generation: GenerationState | None = None) -> ApiResponse:
    """Answer 200 with one row and its ETag."""
    return ApiResponse(200, serialize(row, schema), with_etag=True, watched_generation=watched_generation)


def created(row: object, schema: type[Schema], location: str) -> ApiResponse:
    """Answer 201 with the new row; `location` is the path where it can be fetched."""
    return ApiResponse(201, serialize(row, schema), {"Location": location}, with_etag=True)


def accepted(
    row: object, schema: type[Schema], location: str, watched_generation: GenerationState | None = None
) -> ApiResponse:
    """Answer 202 with the job that will do the work; `location` is the path to watch it at."""
    return ApiResponse(
        202, serialize(row, schema), {"Location": location}, watched_generation=watched_generation
    )


def no_content() -> ApiResponse:
    """Answer 204."""
    return ApiResponse(204)


def file_response(
    content: Path | bytes, media_type: str, etag: str | None = None, **headers: str
) -> ApiResponse:
    """Answer 200 with a file; underscores in header names become dashes (`Cache_Control="..."`).

    A path is streamed from disk after the transaction has ended, bytes are sent as they are.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if etag is not None:
        named["ETag"] = etag if etag.startswith(('"', "W/")) else f'"{etag}"'
    return ApiResponse(200, content, named, media_type)


def event_stream(watched_generation: GenerationState) -> ApiResponse:
    """Answer 200 with a stream of events, which begins with the state given."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return ApiResponse(
        200, headers=headers, media_type="text/event-stream", watched_generation=watched_generation
    )


def json_response(data: Mapping[str, Any], **headers: str) -> ApiResponse:
    """Answer 200 with a collection or any other JSON that has no single resource's ETag."""
    return ApiResponse(200, dict(data), {name.replace("_", "-"): value for name, value in headers.items()})


@cache
def _gzip(document: bytes) -> bytes:
    """Return a document compressed: once, when it is first asked for; every server makes the same bytes."""
    return gzip.compress(document, mtime=0)


@cache
def _document_etag(document: bytes) -> str:
    """Return the tag of a document; made once, because whoever has the document asks for nothing else."""
    return strong_etag(document)


def accepts_gzip(accepted: Accept) -> bool:
    """Return whether an Accept-Encoding (RFC 9110, 12.5.3) takes gzip, and likes nothing plain better."""
    weight = accepted.quality("gzip")
    return weight > 0 and weight >= accepted.quality("identity")


def document_response(content: bytes, media_type: str, **headers: str) -> ApiResponse:
    """Answer 200 with a document, its compressed form where the caller takes that; each form has its own tag.

    Headers are named as for `found_file`.
    """
    headers["Vary"] = "Accept-Encoding"
    if not accepts_gzip(request.accept_encodings):
        return file_response(content, media_type, _document_etag(content), **headers)
    packed = _gzip(content)
    answer = file_response(content, media_type, _document_etag(packed), Content_Encoding="gzip", **headers)
    answer.compressed_body = packed
    return answer
