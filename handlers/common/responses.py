"""Build the responses that handlers return: status, headers and a body that is not encoded yet.

The module knows nothing of the contract: the endpoint encodes a response, validates it and then commits.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any

import orjson
from marshmallow import Schema
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from handlers.common.context import current_request
from handlers.schemas.serializer import get_list_serializer, get_serializer
from studio.generations.watch import GenerationState
from studio.infrastructure.change_hub import Watched

SANDBOX_CSP = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""The Content-Security-Policy of uploaded files: browsers run no scripts in them."""

MIN_COMPRESSED_BYTES = 1_000
NO_STORE = {"Cache-Control": "no-store"}
"""The header of responses that contain a secret."""

_JSON_OPTIONS = orjson.OPT_UTC_Z


@dataclass
class ApiResponse:
    """A response before it is validated and sent.

    Attributes:
        status: The HTTP status.
        body: JSON data, bytes, the path of a file, or None.
        headers: The headers, without Content-Type and ETag of `with_etag`.
        media_type: The media type of the body.
        with_etag: Whether the endpoint adds a strong ETag of the encoded body.
        watched: What the client can wait for (long polling), for a generation also follow (events).
        compressed_body: The bytes to send, if they are compressed; `body` is what is validated.
        may_compress: Whether the endpoint compresses a large body for a client that accepts it.
        temporary_file: The open file at the path `body`. It is closed, and so deleted, at the end of the
            request.
    """

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    with_etag: bool = False
    watched: Watched | None = None
    compressed_body: bytes | None = None
    may_compress: bool = False
    temporary_file: IO[str] | None = None


@dataclass(frozen=True)
class EncodedResponse:
    """A response as it is sent; `body` is None for a file and for a response without a body."""

    status: int
    media_type: str
    headers: dict[str, str]
    body: bytes | None


def serialize(row: object, schema: type[Schema]) -> dict[str, Any]:
    """Return a row as JSON data."""
    return get_serializer(schema)(row)


def serialize_many(rows: Iterable[object], schema: type[Schema]) -> list[dict[str, Any]]:
    """Return rows as JSON data."""
    return get_list_serializer(schema)(rows)


def encode_json(value: object) -> bytes:
    """Return JSON in UTF-8 without white space; times are in UTC with a `Z`."""
    return orjson.dumps(value, option=_JSON_OPTIONS)


def strong_etag(body: bytes) -> str:
    """Return the entity tag of a body, with its quotes (RFC 9110, section 8.8.3)."""
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


def ok(row: object, schema: type[Schema], watched: Watched | None = None) -> ApiResponse:
    """Return a 200 response with a row and its ETag."""
    return ApiResponse(200, serialize(row, schema), with_etag=True, watched=watched)


def created(row: object, schema: type[Schema], location: str) -> ApiResponse:
    """Return a 201 response with a new row; `location` is its path."""
    return ApiResponse(201, serialize(row, schema), {"Location": location}, with_etag=True)


def accepted(row: object, schema: type[Schema], location: str, watched: Watched | None = None) -> ApiResponse:
    """Return a 202 response with the row that describes the task; `location` is the path to poll."""
    return ApiResponse(202, serialize(row, schema), {"Location": location}, watched=watched)


def no_content() -> ApiResponse:
    """Return a 204 response."""
    return ApiResponse(204)


def file_response(
    content: Path | bytes, media_type: str, etag: str | None = None, **headers: str
) -> ApiResponse:
    """Return a 200 response with a file.

    Args:
        content: The bytes, or a path that is streamed after the transaction has ended.
        media_type: The media type of the file.
        etag: The entity tag, with or without quotes.
        headers: More headers; underscores in names become hyphens (`Cache_Control="no-store"`).
    """
    all_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if etag is not None:
        all_headers["ETag"] = etag if etag.startswith(('"', "W/")) else f'"{etag}"'
    return ApiResponse(200, content, all_headers, media_type)


def event_stream(watched: GenerationState) -> ApiResponse:
    """Return a 200 response that streams the events of a generation, starting with the given state."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return ApiResponse(200, headers=headers, media_type="text/event-stream", watched=watched)


def json_response(data: Mapping[str, Any], **headers: str) -> ApiResponse:
    """Return a 200 response with JSON that has no ETag; header names as in `file_response`."""
    return ApiResponse(200, dict(data), {name.replace("_", "-"): value for name, value in headers.items()})


@cache
def _gzip(document: bytes) -> bytes:
    # Without a modification time the bytes, and so the ETag, are the same on each server.
    return gzip.compress(document, mtime=0)


@cache
def _document_etag(document: bytes) -> str:
    return strong_etag(document)


def accepts_gzip(accepted: Accept) -> bool:
    """Return whether an Accept-Encoding header accepts gzip at least as much as no encoding.

    See RFC 9110, section 12.5.3.
    """
    weight = accepted.quality("gzip")
    return weight > 0 and weight >= accepted.quality("identity")


def client_accepts_gzip() -> bool:
    """Return whether the client of the running request accepts gzip."""
    return _accepts_gzip(current_request().find_header(b"accept-encoding"))


@lru_cache(maxsize=256)
def _accepts_gzip(header: str | None) -> bool:
    return accepts_gzip(parse_accept_header(header, Accept))


def compress(encoded: EncodedResponse) -> EncodedResponse:
    """Return a response with its body compressed, if the client accepts gzip and the body is over 1 kB.

    BREACH needs a browser that sends the victim's credential with requests of the attacker. This API takes
    its credentials from the `Authorization` header only, which no other site can make a browser send.
    """
    headers = {**encoded.headers, "Vary": "Accept-Encoding"}
    body = encoded.body
    if body is not None and len(body) > MIN_COMPRESSED_BYTES and client_accepts_gzip():
        # A page of 63 kB takes 0.07 ms and becomes 4.1 kB; level 6 would take 0.26 ms for 3.6 kB.
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return replace(encoded, headers=headers, body=body)


def document_response(content: bytes, media_type: str, **headers: str) -> ApiResponse:
    """Return a 200 response with a document, compressed if the client accepts that.

    Each encoding has its own ETag. Header names are as in `file_response`.
    """
    headers["Vary"] = "Accept-Encoding"
    if not client_accepts_gzip():
        return file_response(content, media_type, _document_etag(content), **headers)
    compressed = _gzip(content)
    etag = _document_etag(compressed)
    response = file_response(content, media_type, etag, Content_Encoding="gzip", **headers)
    response.compressed_body = compressed
    return response
