"""Read request bodies: JSON, forms, multipart and binary, with limits on size, time and memory.

Bodies are read on the event loop. A thread parses large ones, and finds the violations of wrong ones: a
thousand violations take 25 ms. The caller decides when the thread runs. This module knows ASGI, but not
Flask. Standards: RFC 9110 (media types), RFC 7578 (multipart).
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, TypeAlias

from anyio import to_thread
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive

from handlers.contract.coercion import Converter, ConverterCompiler, parse_text
from handlers.contract.document import Document, RawOperation
from handlers.contract.errors import (
    BadRequest,
    ContentTooLarge,
    ContractError,
    RequestError,
    RequestTimeout,
    UnsupportedMediaType,
    Violation,
)
from handlers.contract.parameters import parse_query
from handlers.contract.schema_compiler import SchemaCompiler
from handlers.contract.strict_json import MAX_ITEMS, parse_json
from handlers.contract.validation_errors import find_violations

Judged: TypeAlias = tuple[Any, list[Violation]]
"""A body as the handler receives it, and its violations; with violations the body is None."""
RunInTurn: TypeAlias = Callable[[Callable[[], Judged]], Awaitable[Judged]]
"""Runs a function that parses or judges a body, in a thread, and returns its result."""


@dataclass(frozen=True)
class UploadedFile:
    """A binary field of a multipart body. The server closes the file at the end of the request.

    Attributes:
        filename: As the client sent it; may be empty or hostile.
        content_type: As the client sent it; not verified.
        size: In bytes.
        file: Seekable, positioned at its start.
    """

    filename: str
    content_type: str
    size: int
    file: BinaryIO


JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
MERGE_PATCH = "application/merge-patch+json"
MULTIPART_OVERHEAD = 65_536
MAX_FORM_BYTES = 65_536
MAX_MEMORY_BYTES = 1_048_576
MIN_BYTES_PER_SECOND = 32_768
MAX_EVENT_LOOP_BYTES = 16_384
"""JSON up to this size is parsed and validated on the event loop: a switch to a thread would cost more."""

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_BOUNDARY = re.compile(r";\s*boundary\s*=\s*(\"[^\"]{1,70}\"|[^\";\s]{1,70})", re.IGNORECASE)


@dataclass(frozen=True)
class BodyLimits:
    """Limits of request bodies.

    Attributes:
        json: The maximum size of a JSON body, in bytes. An operation can have its own (`x-max-body-bytes`).
        items: The maximum of items and members in a JSON body. An operation can have its own (`x-max-items`).
        upload: The size limit of uploads: of a binary body or of all files of a multipart body, in bytes.
        timeout_seconds: How long a client may stall: the window in which its rate is measured.
    """

    json: int = 1_000_000
    upload: int = 52_428_800
    timeout_seconds: float = 20.0
    items: int = MAX_ITEMS


class ClientDisconnected(Exception):
    """The client closed the connection before the body was complete. No response can be sent."""


async def read_chunks(receive: Receive, limit: int, timeout_seconds: float) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a body as they arrive.

    Args:
        receive: The ASGI callable.
        limit: The maximum size in bytes.
        timeout_seconds: How long the client may stall. MIN_BYTES_PER_SECOND bytes earn one more second, up to
            this time: a fast start does not pay for a long pause (a leaky bucket).

    Raises:
        ContentTooLarge: The body exceeds the limit; raised at the first chunk beyond it.
        RequestTimeout: The rate of the last seconds is too low (slow clients, OWASP API4).
        ClientDisconnected: The client closed the connection.
    """
    clock = asyncio.get_running_loop().time
    total, more, patience = 0, True, timeout_seconds
    while more:
        # Only waiting counts: while the server itself writes to a slow disk, the client cannot send.
        waits_since = clock()
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError:
            raise RequestTimeout from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk = message.get("body", b"")
        total += len(chunk)
        patience += waits_since - clock() + len(chunk) / MIN_BYTES_PER_SECOND
        patience = min(patience, timeout_seconds)
        if total > limit:
            raise ContentTooLarge(f"The request body is larger than {limit} bytes")
        more = message.get("more_body", False)
        yield chunk


class _NotUtf8(MultiPartException):
    """A text part or the name of a part is not UTF-8 (RFC 7578, section 5.1)."""


class _StrictMultipart(MultiPartParser):
    """Starlette's parser, which accepts truncated bodies and decodes invalid UTF-8; this one rejects both."""

    complete = False

    def on_headers_finished(self) -> None:
        """Reject names that are not UTF-8: Starlette would decode them as Latin-1."""
        _require_utf8(self._current_part.content_disposition or b"")
        super().on_headers_finished()

    def on_part_end(self) -> None:
        """Reject text that is not UTF-8: Starlette would decode it as Latin-1."""
        if self._current_part.file is None:
            _require_utf8(self._current_part.data)
        super().on_part_end()

    def on_end(self) -> None:
        """Remember that the closing boundary arrived."""
        self.complete = True


def _require_utf8(raw: bytes | bytearray) -> None:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _NotUtf8("A text part of the multipart body is not UTF-8") from None


class _Content:
    """A media type that an operation accepts."""

    def __init__(
        self,
        media_type: str,
        raw: dict[str, Any],
        fill_defaults: bool,
        document: Document,
        schema_compiler: SchemaCompiler,
        converter_compiler: ConverterCompiler,
    ) -> None:
        self.media_type = media_type
        self.max_bytes: int | None = raw.get("x-max-body-bytes")
        schema = raw.get("schema") or {}
        resolved = document.resolve(schema)
        self.is_binary = resolved.get("format") == "binary"
        if media_type in (FORM, MULTIPART) and "properties" not in resolved:
            raise ContractError(f"a body of {media_type} needs its properties inline")
        if not (self.is_binary or media_type in (FORM, MULTIPART) or media_type.endswith("json")):
            raise ContractError(f"a body of {media_type} must have the format binary")
        self.properties = {
            name: document.resolve(part) for name, part in resolved.get("properties", {}).items()
        }
        self.required: list[str] = resolved.get("required", [])
        self.file_fields = {name for name, part in self.properties.items() if part.get("format") == "binary"}
        self.schema = schema_compiler.compile_request(schema)
        self.converter: Converter | None = converter_compiler.compile(schema, fill_defaults)

    def convert(self, value: Any) -> Any:
        """Return a valid body as the handler receives it."""
        return value if self.converter is None else self.converter(value)

    def limit(self, limits: BodyLimits) -> int:
        """Return the maximum size of a body of this media type, in bytes."""
        if self.is_binary:
            return self.max_bytes or limits.upload
        if self.media_type == MULTIPART:
            return limits.upload + MULTIPART_OVERHEAD
        return min(limits.json, MAX_FORM_BYTES) if self.media_type == FORM else limits.json


@dataclass(frozen=True)
class AnnouncedBody:
    """The body that the head of a request announces; none of it has been read."""

    content: _Content
    content_type: str
    limit: int

    @property
    def has_file(self) -> bool:
        """Whether the body is a file or has files, which the server stores while they arrive."""
        return self.content.is_binary or bool(self.content.file_fields)


class RequestBody:
    """The request body of an operation."""

    def __init__(
        self,
        document: Document,
        schema_compiler: SchemaCompiler,
        converter_compiler: ConverterCompiler,
        raw: RawOperation,
        limits: BodyLimits,
    ) -> None:
        request_body = document.resolve(raw.definition.get("requestBody") or {})
        # An absent property of a merge patch (RFC 7396) stays as it is; a default would overwrite it.
        fill_defaults = raw.method != "PATCH"
        self.required: bool = request_body.get("required", False)
        self.limits = replace(
            limits,
            json=raw.definition.get("x-max-body-bytes", limits.json),
            items=raw.definition.get("x-max-items", limits.items),
        )
        self.contents = {
            media_type.lower(): _Content(
                media_type.lower(), content, fill_defaults, document, schema_compiler, converter_compiler
            )
            for media_type, content in request_body.get("content", {}).items()
        }
        if raw.method == "PATCH" and JSON in self.contents:
            # Said once, in the description of the contract: generated clients cannot send two media types.
            self.contents[MERGE_PATCH] = self.contents[JSON]

    def announce(self, headers: Headers) -> AnnouncedBody | None:
        """Return the body that the request headers announce, None if the request has no body.

        Raises:
            ContentTooLarge: Its length exceeds the limit.
            UnsupportedMediaType: The operation does not accept the media type, charset or content encoding.
        """
        declared = headers.get("content-length")
        # A request without either header has no body (RFC 9112, section 6.3).
        if (declared is None and "transfer-encoding" not in headers) or declared == "0":
            return None
        content_type = headers.get("content-type", "")
        content = self._content(content_type, headers)
        limit = content.limit(self.limits)
        # Reject by the header before reading; chunked bodies are counted while they arrive.
        if declared is not None and not (_LENGTH.fullmatch(declared) and int(declared) <= limit):
            raise ContentTooLarge(f"The request body is larger than {limit} bytes")
        return AnnouncedBody(content, content_type, limit)

    async def read(
        self,
        body: AnnouncedBody | None,
        receive: Receive,
        files_to_close: list[Any],
        run_in_turn: RunInTurn,
    ) -> Judged:
        """Return the body as the handler receives it, and all violations; with violations the body is None.

        Args:
            body: What `announce` returned.
            receive: The ASGI callable.
            files_to_close: Temporary files are appended; the caller closes them at the end of the request.
            run_in_turn: Parses a large body, and finds the violations of a wrong one.

        Raises:
            BadRequest: The body cannot be parsed.
            ContentTooLarge: The body exceeds a limit.
            RequestTimeout: The body did not arrive in time.
            ClientDisconnected: The client closed the connection.
        """
        if body is None:
            return self._empty_body()
        content = body.content
        chunks = read_chunks(receive, body.limit, self.limits.timeout_seconds)
        if content.media_type == MULTIPART:
            return await _read_multipart(content, body.content_type, chunks, files_to_close, run_in_turn)
        if content.is_binary:
            file, size = await _spool(chunks, files_to_close)
            return (file, []) if size else self._empty_body()
        raw = b"".join([chunk async for chunk in chunks])
        if not raw:
            return self._empty_body()
        if content.media_type == FORM:
            return await _validate(content, *_read_form(content, raw), run_in_turn)
        if len(raw) > MAX_EVENT_LOOP_BYTES:
            return await run_in_turn(partial(_read_json, content, raw, self.limits.items))
        return await _validate(content, parse_json(raw, self.limits.items), [], run_in_turn)

    def _empty_body(self) -> Judged:
        if self.required:
            names = [f"`{name}`" for content in self.contents.values() for name in content.required]
            wanted = f": send {', '.join(dict.fromkeys(names))}" if names else ""
            return None, [Violation(("body",), f"Is required{wanted}", "missing")]
        # An optional JSON body that is absent has the defaults of an empty object.
        content = self.contents.get(JSON)
        return ({} if content is None else content.convert({})), []

    def _content(self, content_type: str, headers: Headers) -> _Content:
        expected = f"Send {' or '.join(self.contents)}"
        media_type = content_type.partition(";")[0].strip().lower()
        content = self.contents.get(media_type)
        if content is None:
            main = media_type.partition("/")[0]
            content = self.contents.get(f"{main}/*") or (self.contents.get("*/*") if media_type else None)
        if content is None:
            raise UnsupportedMediaType(expected)
        charset = _CHARSET.search(content_type)
        if charset and charset[1].lower() not in ("utf-8", "utf8") and not content.is_binary:
            raise UnsupportedMediaType("Only UTF-8 is accepted")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("A compressed request body is not accepted")
        return content


async def _validate(
    content: _Content, value: Any, violations: list[Violation], run_in_turn: RunInTurn
) -> Judged:
    """Return a small body as the handler receives it, and all its violations."""
    if not content.schema.is_valid(value):
        _, found = await run_in_turn(lambda: (None, find_violations(content.schema, value, ("body",))))
        # Report one violation per field: a file in place of text would also be a wrong string.
        known = {violation.loc for violation in violations}
        violations = violations + [violation for violation in found if violation.loc not in known]
    return (None, violations) if violations else (content.convert(value), [])


def _read_json(content: _Content, raw: bytes, max_items: int) -> Judged:
    value = parse_json(raw, max_items)
    violations = find_violations(content.schema, value, ("body",))
    return (None, violations) if violations else (content.convert(value), [])


def _read_form(content: _Content, raw: bytes) -> tuple[dict[str, Any], list[Violation]]:
    try:
        texts = parse_query(raw.decode("ascii"), "body")
    except UnicodeDecodeError:
        raise BadRequest("The form is not percent-encoded") from None
    return _read_fields(content, texts)


def _read_fields(content: _Content, texts: dict[str, list[str]]) -> tuple[dict[str, Any], list[Violation]]:
    """Return the fields of a form as JSON values. Only arrays may be repeated."""
    value: dict[str, Any] = {}
    violations = []
    for name, values in texts.items():
        schema = content.properties.get(name, {})
        if schema.get("type") == "array":
            value[name] = [parse_text(schema.get("items", {}).get("type"), text) for text in values]
            continue
        value[name] = parse_text(schema.get("type"), values[0])
        if len(values) > 1:
            violations.append(Violation(("body", name), "Must be sent only once", "repeated"))
    return value, violations


async def _spool(chunks: AsyncGenerator[bytes, None], files_to_close: list[Any]) -> tuple[Any, int]:
    file = tempfile.SpooledTemporaryFile(max_size=MAX_MEMORY_BYTES)  # noqa: SIM115 - closed at the end of the request
    files_to_close.append(file)
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_MEMORY_BYTES:
            # Beyond this size the file is on disk, and writing blocks.
            await to_thread.run_sync(file.write, chunk)
        else:
            file.write(chunk)
    file.seek(0)
    return file, size


async def _read_multipart(
    content: _Content,
    content_type: str,
    chunks: AsyncGenerator[bytes, None],
    files_to_close: list[Any],
    run_in_turn: RunInTurn,
) -> Judged:
    if not _BOUNDARY.search(content_type):
        raise BadRequest("The multipart body has no boundary")
    parser = _StrictMultipart(Headers({"content-type": content_type}), chunks, max_files=20, max_fields=100)
    try:
        form = await parser.parse()
    except _NotUtf8 as error:
        raise BadRequest(error.message) from None
    except MultiPartException as error:
        # Starlette has one exception for limits and for syntax errors.
        if "maximum size" in error.message or "Too many" in error.message:
            raise ContentTooLarge(error.message) from None
        raise BadRequest("The multipart body cannot be read") from None
    except (RequestError, ClientDisconnected, OSError):
        # OSError: the disk of the temporary files is full.
        raise
    except Exception as error:  # The parser raises KeyError, UnicodeDecodeError and others
        raise BadRequest("The multipart body cannot be read") from error
    files_to_close.extend(part.file for _, part in form.multi_items() if isinstance(part, UploadFile))
    if not parser.complete:
        raise BadRequest("The multipart body ends before its closing boundary")
    texts: dict[str, list[str]] = {}
    files: dict[str, list[UploadFile]] = {}
    for name, part in form.multi_items():
        if isinstance(part, UploadFile):
            files.setdefault(name, []).append(part)
        else:
            texts.setdefault(name, []).append(part)
    return await _join_parts(content, texts, files, run_in_turn)


async def _join_parts(
    content: _Content,
    texts: dict[str, list[str]],
    files: dict[str, list[UploadFile]],
    run_in_turn: RunInTurn,
) -> Judged:
    misplaced = [name for name in files if name in content.properties and name not in content.file_fields]
    as_text = [name for name in texts if name in content.file_fields]
    violations = [Violation(("body", name), "Must be text, not a file", "string_type") for name in misplaced]
    violations += [Violation(("body", name), "Must be a file", "file_type") for name in as_text]
    violations += [
        Violation(("body", name), "Must be sent only once", "repeated")
        for name, parts in files.items()
        if len(parts) > 1
    ]
    fields, repeated = _read_fields(
        content, {name: values for name, values in texts.items() if name not in as_text}
    )
    # Validate a marker in place of each file, so that missing and unknown files are reported.
    markers = dict.fromkeys([*files, *as_text], "")
    value, violations = await _validate(content, {**fields, **markers}, violations + repeated, run_in_turn)
    if violations:
        return None, violations
    for name, parts in files.items():
        part = parts[0]
        value[name] = UploadedFile(part.filename or "", part.content_type or "", part.size or 0, part.file)
    return value, []
