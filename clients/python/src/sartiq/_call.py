"""One call of an operation, and the HTTP request that it becomes. It sends nothing."""

from __future__ import annotations

import datetime as dt
import json
import mimetypes
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID, uuid4

import anyio
from pydantic import BaseModel

from sartiq._model import OMIT, FileInput, Omit
from sartiq.errors import ConfigurationError

CHUNK = 256 * 1024
# Not all systems know these.
MEDIA_TYPES = {
    ".avif": "image/avif",
    ".csv": "text/csv",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".webp": "image/webp",
}
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})


@dataclass(frozen=True)
class Call:
    """What a generated method passes to the transport."""

    method: str
    target: str
    """Path of the contract, or a complete URL, which then gets no credentials."""
    path: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    body_kind: Literal["json", "form", "multipart"] = "json"
    content: FileInput | None = None
    content_type: str | None = None
    accepts_key: bool = False
    idempotency_key: str | None = None
    public: bool = False
    repeatable: bool = False
    """Whether another attempt is harmless although neither the method nor a key says so."""
    timeout: float | None = None

    @property
    def may_repeat(self) -> bool:
        """Return whether a request that may have been executed can be sent again."""
        return self.repeatable or self.accepts_key or self.method in IDEMPOTENT_METHODS

    def with_key(self) -> Call:
        """Return the call with the key that all of its attempts send."""
        if self.accepts_key and self.idempotency_key is None:
            return replace(self, idempotency_key=str(uuid4()))
        return self

    def with_query(self, **values: Any) -> Call:
        """Return the call with other query parameters."""
        return replace(self, query={**self.query, **values})

    def with_header(self, name: str, value: str | Omit) -> Call:
        """Return the call with another header."""
        return replace(self, header={**self.header, name: value})

    def build_url(self, base_url: str) -> str:
        """Return the URL without the query.

        Raises:
            ConfigurationError: An identifier in the path is None or empty.
        """
        if self.target.startswith(("http://", "https://")):
            return self.target
        for name, value in self.path.items():
            # Without it, the URL would be that of another operation, such as the list.
            if value is None or text(value) == "":
                raise ConfigurationError(f"The argument `{name}` is empty.")
        values = {name: quote(text(value), safe="") for name, value in self.path.items()}
        return base_url + self.target.format_map(values)

    def build_query(self, organization_id: str | None) -> dict[str, str]:
        """Return the query parameters, with the client's organization where the operation takes one."""
        query = dict(self.query)
        if query.get("organization_id") is OMIT and organization_id is not None:
            query["organization_id"] = organization_id
        return {name: text(value) for name, value in query.items() if value is not None and value is not OMIT}

    def build_headers(self) -> dict[str, str]:
        """Return the headers except for the credentials and those of the body."""
        headers = {
            name: text(value)
            for name, value in self.header.items()
            if value is not None and value is not OMIT
        }
        if self.idempotency_key is not None:
            headers["Idempotency-Key"] = self.idempotency_key
        return headers

    def build_body(self, *, is_async: bool) -> dict[str, Any]:
        """Return the arguments of httpx2 for the body. Files are opened anew for each attempt."""
        if self.content is not None:
            return build_content(self.content, self.content_type, is_async=is_async)
        if self.body is None:
            return {}
        values = {name: value for name, value in self.body.items() if value is not OMIT}
        if self.body_kind == "json":
            content = json.dumps(values, default=to_json, ensure_ascii=False).encode()
            return {"content": content, "headers": {"Content-Type": "application/json"}}
        if self.body_kind == "form":
            return {"data": {name: text(value) for name, value in values.items() if value is not None}}
        files = {name: read_file(value) for name, value in values.items() if is_file(name, value)}
        data = {
            name: text(value) for name, value in values.items() if name not in files and value is not None
        }
        return {"data": data, "files": files}


def text(value: Any) -> str:
    """Return a value as it stands in a URL, a header or a form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime | dt.date):
        return str(to_json(value))
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(text(item) for item in value)
    return str(value)


def to_json(value: Any) -> Any:
    """Return a value that is not JSON in the form that the contract expects.

    Raises:
        TypeError: There is no such form.
    """
    if isinstance(value, dt.datetime):
        # A time without a zone is the local time, as everywhere in Python.
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, UUID | Path):
        return str(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if item is not OMIT}
    if isinstance(value, Iterator | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


def is_file(name: str, value: Any) -> bool:
    """Return whether a property of a multipart body is a file. The contract calls each of them `file`."""
    return name == "file" or isinstance(value, bytes | os.PathLike)


def read_file(file: FileInput) -> tuple[str, bytes, str]:
    """Return the name, the bytes and the media type of a file."""
    match file:
        case tuple():
            name, content = file
        case bytes():
            name, content = "file", file
        case str() | os.PathLike():
            name, content = Path(file).name, Path(file).read_bytes()
        case _:
            file.seek(0)
            name, content = Path(str(getattr(file, "name", "file"))).name, file.read()
    return name, content, guess_type(name)


def guess_type(name: str, default: str = "application/octet-stream") -> str:
    """Return the media type of a file name."""
    return MEDIA_TYPES.get(Path(name).suffix.lower()) or mimetypes.guess_type(name)[0] or default


def build_content(file: FileInput, content_type: str | None, *, is_async: bool) -> dict[str, Any]:
    """Return the arguments of httpx2 that send a file as the whole body, from disk if it is a path."""
    if isinstance(file, str | os.PathLike):
        path = Path(file)
        headers = {"Content-Length": str(path.stat().st_size)}
        content: Any = read_chunks_async(path) if is_async else read_chunks(path)
        name = path.name
    else:
        name, content, _ = read_file(file)
        headers = {}
    return {"content": content, "headers": {**headers, "Content-Type": content_type or guess_type(name)}}


def read_chunks(path: Path) -> Iterator[bytes]:
    """Read a file in parts."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


async def read_chunks_async(path: Path) -> AsyncIterator[bytes]:
    """Read a file in parts, without blocking the event loop."""
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(CHUNK):
            yield chunk
