"""What a handler returns: a status, a body that is not yet bytes, and headers.

An answer knows nothing about the contract; the endpoint serialises it, checks it and only then commits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from marshmallow import Schema

from handlers.schemas.compiled import reader_of
from studio.watching import GenerationState

SANDBOX = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""The policy of bytes that people sent: whatever a browser takes them for, it runs nothing in them."""

NO_STORE = {"Cache-Control": "no-store"}
"""The header of answers that hold a secret."""

_JSON_OPTIONS = orjson.OPT_UTC_Z


@dataclass
class Answer:
    """One response before it is checked and sent. `tagged` asks for a strong ETag over the body.

    `watch` is the generation that callers may wait for or follow. `packed` is the body as it is sent, where
    that is compressed; the body itself is what is checked.
    """

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    tagged: bool = False
    watch: GenerationState | None = None
    packed: bytes | None = None


@dataclass(frozen=True)
class Encoded:
    """An answer as it is sent, the media type apart from the other headers; no body for none or a file."""

    status: int
    media_type: str
    headers: dict[str, str]
    body: bytes | None


def present(row: object, schema: type[Schema]) -> dict[str, Any]:
    """Return one row as the outside sees it."""
    return reader_of(schema)(row)


def present_many(rows: Iterable[object], schema: type[Schema]) -> list[dict[str, Any]]:
    """Return rows as the outside sees them."""
    return list(map(reader_of(schema), rows))


def encode_json(value: object) -> bytes:
    """Return the bytes of a JSON answer: UTF-8, no white space, times in UTC with a Z."""
    return orjson.dumps(value, option=_JSON_OPTIONS)


def strong_etag(body: bytes) -> str:
    """Return the entity tag of an answer's bytes, quotes included (RFC 9110, 8.8.3)."""
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


def ok(row: object, schema: type[Schema], watch: GenerationState | None = None) -> Answer:
    """Answer 200 with one row and its ETag."""
    return Answer(200, present(row, schema), tagged=True, watch=watch)


def created(row: object, schema: type[Schema], location: str) -> Answer:
    """Answer 201 with the new row; `location` is the path where it can be fetched."""
    return Answer(201, present(row, schema), {"Location": location}, tagged=True)


def accepted(
    row: object, schema: type[Schema], location: str, watch: GenerationState | None = None
) -> Answer:
    """Answer 202 with the job that will do the work; `location` is the path to watch it at."""
    return Answer(202, present(row, schema), {"Location": location}, watch=watch)


def no_content() -> Answer:
    """Answer 204."""
    return Answer(204)


def found_file(content: Path | bytes, media_type: str, etag: str | None = None, **headers: str) -> Answer:
    """Answer 200 with a file; underscores in header names become dashes (`Cache_Control="..."`).

    A path is streamed from disk after the transaction has ended, bytes are sent as they are.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if etag is not None:
        named["ETag"] = etag if etag.startswith(('"', "W/")) else f'"{etag}"'
    return Answer(200, content, named, media_type)


def event_stream(watch: GenerationState) -> Answer:
    """Answer 200 with a stream of events, which begins with the state given."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Answer(200, headers=headers, media_type="text/event-stream", watch=watch)


def listing(data: Mapping[str, Any], **headers: str) -> Answer:
    """Answer 200 with a collection or any other JSON that has no single resource's ETag."""
    return Answer(200, dict(data), {name.replace("_", "-"): value for name, value in headers.items()})
