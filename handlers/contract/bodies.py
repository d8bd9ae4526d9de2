"""The body of a request: media type, size while it streams, syntax, schema; then what the handler gets.

JSON is held in memory up to 1 MB, forms up to 64 kB, files go to disk when they grow. All sizes are bytes.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive

from handlers.contract.bundle import Bundle, RawOperation
from handlers.contract.coerce import Plan, Planner, read_text
from handlers.contract.parameters import parse_pairs
from handlers.contract.refusals import (
    BodyTooLarge,
    BodyTooSlow,
    ContractError,
    Malformed,
    RequestRefused,
    Violation,
    WrongMediaType,
)
from handlers.contract.strict_json import parse_json
from handlers.contract.translate import Translator
from handlers.contract.violations import violations_of
from handlers.uploaded import UploadedFile

JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
MULTIPART_OVERHEAD = 65_536
LARGEST_FORM_BYTES = 65_536
SPOOL_BYTES = 1_048_576
SLOWEST_RATE = 32_768
LOOP_BYTES = 65_536
"""A JSON body up to this size is read on the event loop: a hop to a thread would cost more."""

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_BOUNDARY = re.compile(r";\s*boundary\s*=\s*(\"[^\"]{1,70}\"|[^\";\s]{1,70})", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """How many bytes of each kind of body are taken, and how long in seconds one may keep us waiting."""

    json: int = 1_000_000
    upload: int = 52_428_800
    patience: float = 20.0


class ClientGone(Exception):
    """The client closed the connection before its body was complete; there is nobody to answer."""


async def chunks_of(receive: Receive, limit: int, patience: float) -> AsyncGenerator[bytes, None]:
    """Give the pieces of a body as they come; BodyTooLarge as soon as there are more bytes than `limit`.

    Raises BodyTooSlow when it is not complete after `patience` seconds and one more for every SLOWEST_RATE
    bytes that came.
    """
    began = asyncio.get_running_loop().time()
    total, more = 0, True
    while more:
        try:
            async with asyncio.timeout_at(began + patience + total / SLOWEST_RATE):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        total += len(piece)
        if total > limit:
            raise BodyTooLarge(f"The request body is larger than {limit} bytes")
        more = message.get("more_body", False)
        yield piece


class _NotUtf8(MultiPartException):
    """Text of a part, or its name, is not UTF-8 (RFC 7578, 5.1)."""


class _StrictMultipart(MultiPartParser):
    """Starlette's parser, which takes half a body for a whole one and any bytes for text; this one tells."""

    complete = False

    def on_headers_finished(self) -> None:
        """Refuse names that are not UTF-8, which would be read as latin-1."""
        _require_utf8(self._current_part.content_disposition or b"")
        super().on_headers_finished()

    def on_part_end(self) -> None:
        """Refuse text that is not UTF-8, which would be read as latin-1."""
        if self._current_part.file is None:
            _require_utf8(self._current_part.data)
        super().on_part_end()

    def on_end(self) -> None:
        """Remember that the closing boundary came."""
        self.complete = True


def _require_utf8(raw: bytes | bytearray) -> None:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _NotUtf8("A text part of the multipart body is not UTF-8") from None


class _Content:
    """One media type that an operation takes."""

    def __init__(
        self,
        media_type: str,
        raw: dict[str, Any],
        fill: bool,
        bundle: Bundle,
        translator: Translator,
        planner: Planner,
    ) -> None:
        self.media_type = media_type
        schema = raw.get("schema") or {}
        resolved = bundle.resolve(schema)
        self.is_binary = resolved.get("format") == "binary"
        if media_type in (FORM, MULTIPART) and "properties" not in resolved:
            raise ContractError(f"a body of {media_type} needs its properties inline")
        if not (self.is_binary or media_type in (FORM, MULTIPART) or media_type.endswith("json")):
            raise ContractError(f"a body of {media_type} must have the format binary")
        self.properties = {
            name: bundle.resolve(part) for name, part in resolved.get("properties", {}).items()
        }
        self.files = {name for name, part in self.properties.items() if part.get("format") == "binary"}
        self.validator = translator.compile(schema, "request")
        self.plan: Plan | None = planner.compile(schema, fill)

    def limit(self, limits: Limits) -> int:
        """Return how many bytes of this media type are taken."""
        if self.is_binary:
            return limits.upload
        if self.media_type == MULTIPART:
            return limits.upload + MULTIPART_OVERHEAD
        return min(limits.json, LARGEST_FORM_BYTES) if self.media_type == FORM else limits.json


class Bodies:
    """What bodies one operation takes."""

    def __init__(
        self, bundle: Bundle, translator: Translator, planner: Planner, raw: RawOperation, limits: Limits
    ) -> None:
        request_body = bundle.resolve(raw.definition.get("requestBody") or {})
        # A merge patch says what changes: filling in defaults would change more.
        fill = raw.method != "PATCH"
        self.required: bool = request_body.get("required", False)
        self.limits = limits
        self.contents = {
            media_type.lower(): _Content(media_type.lower(), content, fill, bundle, translator, planner)
            for media_type, content in request_body.get("content", {}).items()
        }

    async def read(
        self, headers: Headers, receive: Receive, closing: list[Any]
    ) -> tuple[Any, list[Violation]]:
        """Return the body as the handler gets it, or all violations; files are appended to `closing`.

        Raises BodyTooLarge, BodyTooSlow, WrongMediaType, Malformed, and ClientGone.
        """
        declared = headers.get("content-length")
        if (declared is None and "transfer-encoding" not in headers) or declared == "0":
            return self._absent()
        content_type = headers.get("content-type", "")
        content = self._content(content_type, headers)
        limit = content.limit(self.limits)
        if declared is not None and not (_LENGTH.fullmatch(declared) and int(declared) <= limit):
            raise BodyTooLarge(f"The request body is larger than {limit} bytes")
        chunks = chunks_of(receive, limit, self.limits.patience)
        if content.media_type == MULTIPART:
            return await _read_multipart(content, content_type, chunks, closing)
        if content.is_binary:
            file, size = await _spool(chunks, closing)
            return (file, []) if size else self._absent()
        raw = b"".join([piece async for piece in chunks])
        if not raw:
            return self._absent()
        if content.media_type == FORM:
            return _finish(content, *_read_form(content, raw))
        if len(raw) > LOOP_BYTES:
            return await to_thread.run_sync(_read_json, content, raw)
        return _read_json(content, raw)

    def _absent(self) -> tuple[Any, list[Violation]]:
        if self.required:
            return None, [Violation(("body",), "Is required", "missing")]
        content = self.contents.get(JSON)
        return ({} if content is None or content.plan is None else content.plan({})), []

    def _content(self, content_type: str, headers: Headers) -> _Content:
        expected = f"Send {' or '.join(self.contents)}"
        media_type = content_type.partition(";")[0].strip().lower()
        content = self.contents.get(media_type)
        if content is None:
            main = media_type.partition("/")[0]
            content = self.contents.get(f"{main}/*") or (self.contents.get("*/*") if media_type else None)
        if content is None:
            raise WrongMediaType(expected)
        charset = _CHARSET.search(content_type)
        if charset and charset[1].lower() not in ("utf-8", "utf8") and not content.is_binary:
            raise WrongMediaType("Only UTF-8 is accepted")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise WrongMediaType("A compressed request body is not accepted")
        return content


def _finish(content: _Content, value: Any, violations: list[Violation]) -> tuple[Any, list[Violation]]:
    wrong = {violation.loc for violation in violations}
    violations = violations + [
        v for v in violations_of(content.validator, value, ("body",)) if v.loc not in wrong
    ]
    if violations:
        return None, violations
    return (value if content.plan is None else content.plan(value)), []


def _read_json(content: _Content, raw: bytes) -> tuple[Any, list[Violation]]:
    return _finish(content, parse_json(raw), [])


def _read_form(content: _Content, raw: bytes) -> tuple[dict[str, Any], list[Violation]]:
    try:
        texts = parse_pairs(raw.decode("ascii"), "body")
    except UnicodeDecodeError:
        raise Malformed("The form is not percent-encoded") from None
    return _read_fields(content, texts)


def _read_fields(content: _Content, texts: dict[str, list[str]]) -> tuple[dict[str, Any], list[Violation]]:
    """Return the fields of a form as JSON values; a field is given once unless it is an array."""
    value: dict[str, Any] = {}
    violations = []
    for name, values in texts.items():
        schema = content.properties.get(name, {})
        if schema.get("type") == "array":
            value[name] = [read_text(schema.get("items", {}).get("type"), text) for text in values]
            continue
        value[name] = read_text(schema.get("type"), values[0])
        if len(values) > 1:
            violations.append(Violation(("body", name), "Must be given once", "repeated"))
    return value, violations


async def _spool(chunks: AsyncGenerator[bytes, None], closing: list[Any]) -> tuple[Any, int]:
    file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - the endpoint closes it
    closing.append(file)
    size = 0
    async for piece in chunks:
        size += len(piece)
        if size > SPOOL_BYTES:
            await to_thread.run_sync(file.write, piece)
        else:
            file.write(piece)
    file.seek(0)
    return file, size


async def _read_multipart(
    content: _Content, content_type: str, chunks: AsyncGenerator[bytes, None], closing: list[Any]
) -> tuple[Any, list[Violation]]:
    if not _BOUNDARY.search(content_type):
        raise Malformed("The multipart body has no boundary")
    parser = _StrictMultipart(Headers({"content-type": content_type}), chunks, max_files=20, max_fields=100)
    try:
        form = await parser.parse()
    except _NotUtf8 as error:
        raise Malformed(error.message) from None
    except MultiPartException as error:
        if "maximum size" in error.message or "Too many" in error.message:
            raise BodyTooLarge(error.message) from None
        raise Malformed("The multipart body cannot be read") from None
    except (RequestRefused, ClientGone):
        raise
    except Exception as error:  # The parser raises KeyError, UnicodeDecodeError and more
        raise Malformed("The multipart body cannot be read") from error
    closing.extend(part.file for _, part in form.multi_items() if isinstance(part, UploadFile))
    if not parser.complete:
        raise Malformed("The multipart body ends before its closing boundary")
    texts: dict[str, list[str]] = {}
    files: dict[str, list[UploadFile]] = {}
    for name, part in form.multi_items():
        if isinstance(part, UploadFile):
            files.setdefault(name, []).append(part)
        else:
            texts.setdefault(name, []).append(part)
    return _join_parts(content, texts, files)


def _join_parts(
    content: _Content, texts: dict[str, list[str]], files: dict[str, list[UploadFile]]
) -> tuple[Any, list[Violation]]:
    misplaced = [name for name in files if name in content.properties and name not in content.files]
    as_text = [name for name in texts if name in content.files]
    violations = [Violation(("body", name), "Must be text, not a file", "string_type") for name in misplaced]
    violations += [Violation(("body", name), "Must be a file", "file_type") for name in as_text]
    violations += [
        Violation(("body", name), "Must be given once", "repeated")
        for name, parts in files.items()
        if len(parts) > 1
    ]
    fields, repeated = _read_fields(
        content, {name: values for name, values in texts.items() if name not in as_text}
    )
    # The schema sees a marker in place of bytes, so that required and unknown fields are noticed.
    markers = dict.fromkeys([*files, *as_text], "")
    value, violations = _finish(content, {**fields, **markers}, violations + repeated)
    if violations:
        return None, violations
    for name, parts in files.items():
        part = parts[0]
        value[name] = UploadedFile(part.filename or "", part.content_type or "", part.size or 0, part.file)
    return value, []
