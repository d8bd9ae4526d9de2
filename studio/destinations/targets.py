"""Send files to the server of a destination, through the guarded HTTP client.

What the server answers is reduced to a status and a reason of our own: its text is neither stored nor shown.
Knows no database.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from db.base import utc_now
from db.errors import TargetNotAllowed
from studio.destinations.credentials import Credentials
from studio.destinations.signature import AccessKey, encode_path, sign_headers
from studio.infrastructure.http_client import HttpClientError, HttpResponse, SafeHttpClient
from studio.infrastructure.retry_after import parse_retry_after

MAX_RESPONSE_BYTES = 65_536
USER_AGENT = "Sartiq-Delivery/1.0"
MIN_BYTES_PER_SECOND = 250_000
"""The slowest upload that is waited for; with `BASE_SECONDS` it limits the time of one file."""
BASE_SECONDS = 30.0

ERRORS = {
    "timeout": "The server did not respond in time",
    "connection_failed": "The connection to the server failed",
    "target_not_allowed": "The host is unknown or not on the public internet",
    "redirected": "The server redirects: use the URL that it redirects to",
    "access_denied": "The server denies access: check the permissions of the credentials",
    "invalid_credentials": "The server does not accept the credentials",
    "bucket_not_found": "The bucket does not exist",
    "wrong_region": "The bucket is in another region",
    "refused": "The server did not accept the file",
    "credentials_unreadable": "The stored credentials cannot be decrypted: save them again",
    "interrupted": "The process that delivered the file ended",
    "archive_missing": "The archive of the export is missing or damaged",
    "export_failed": "The archive of the export could not be written",
}
"""The reasons for a failure, with the text for people."""

# Codes of S3 (Amazon S3 API Reference, "Error responses").
_S3_CODE = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
_S3_ERRORS = {
    b"NoSuchBucket": "bucket_not_found",
    b"InvalidAccessKeyId": "invalid_credentials",
    b"SignatureDoesNotMatch": "invalid_credentials",
    b"AuthorizationHeaderMalformed": "wrong_region",
    b"PermanentRedirect": "wrong_region",
    b"TemporaryRedirect": "wrong_region",
}
_STATUS_ERRORS = {401: "invalid_credentials", 403: "access_denied"}
_CLIENT_ERRORS = {
    "timeout": "timeout",
    # The same reason as for a host of the internal network, so that it does not tell which names exist there.
    "unresolved": "target_not_allowed",
    "too_large": "refused",
}


@dataclass(frozen=True)
class Target:
    """A destination as plain values, with its credentials decrypted."""

    kind: str
    url: str
    credentials: Credentials
    region: str = ""
    bucket: str = ""
    prefix: str = ""
    path_style: bool = True
    header_name: str | None = None


@dataclass(frozen=True)
class File:
    """A file to send. `open_chunks` returns its bytes, each time from the beginning."""

    name: str
    size: int
    content_type: str
    open_chunks: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Outcome:
    """What happened to a request: `error` is a key of `ERRORS`, or None if the server accepted it."""

    status_code: int | None = None
    error: str | None = None
    retry_after: timedelta | None = None


PutFile = Callable[[Target, str, File], Outcome]
"""Stores a file under a key below the prefix of a target."""


def put_file(
    client: SafeHttpClient, target: Target, key: str, file: File, seconds: float | None = None
) -> Outcome:
    """Store a file under a key below the prefix of a target, replacing what is there.

    The file is read twice, in chunks: once for its hash, which the request names, and once to send it.

    Args:
        client: The client.
        target: The target.
        key: The key.
        file: The file.
        seconds: The limit of the request; by default it depends on the size of the file.
    """
    digest = hashlib.sha256()
    for chunk in file.open_chunks():
        digest.update(chunk)
    headers = {"Content-Type": file.content_type, "User-Agent": USER_AGENT}
    signed = _authorize(target, "PUT", build_url(target, key), headers, digest.digest())
    sent = {**signed, "Content-Length": str(file.size)}
    limit = BASE_SECONDS + file.size / MIN_BYTES_PER_SECOND if seconds is None else seconds
    return _send(client, target, "PUT", key, sent, file.open_chunks(), limit)


def delete_object(client: SafeHttpClient, target: Target, key: str, seconds: float = BASE_SECONDS) -> Outcome:
    """Delete what is stored under a key."""
    headers = _authorize(
        target, "DELETE", build_url(target, key), {"User-Agent": USER_AGENT}, hashlib.sha256().digest()
    )
    return _send(client, target, "DELETE", key, headers, b"", seconds)


def build_url(target: Target, key: str) -> str:
    """Return the URL of a key: below the URL of the target, or in its bucket below its prefix."""
    base = target.url.rstrip("/")
    if target.kind != "s3":
        return f"{base}/{encode_path(key)}"
    path = "/".join(part for part in (target.prefix.strip("/"), key) if part)
    if target.path_style:
        return f"{base}/{encode_path(f'{target.bucket}/{path}')}"
    parts = urlsplit(base)
    return f"{parts.scheme}://{target.bucket}.{parts.netloc}/{encode_path(path)}"


def _authorize(
    target: Target, method: str, url: str, headers: Mapping[str, str], digest: bytes
) -> dict[str, str]:
    """Return the headers with those that identify the sender and the content."""
    if target.kind == "s3":
        key = AccessKey(
            target.credentials["access_key_id"], target.credentials["secret_access_key"], target.region
        )
        return sign_headers(key, method, url, headers, digest.hex(), utc_now())
    # RFC 9530.
    sent = {**headers, "Content-Digest": f"sha-256=:{b64encode(digest).decode()}:"}
    if target.header_name is not None and "header_value" in target.credentials:
        sent[target.header_name] = target.credentials["header_value"]
    return sent


def _send(
    client: SafeHttpClient,
    target: Target,
    method: str,
    key: str,
    headers: Mapping[str, str],
    content: bytes | Iterator[bytes],
    seconds: float,
) -> Outcome:
    try:
        response = client.send(
            method,
            build_url(target, key),
            headers=headers,
            content=content,
            timeout_seconds=seconds,
            max_bytes=MAX_RESPONSE_BYTES,
        )
    except TargetNotAllowed:
        return Outcome(error="target_not_allowed")
    except HttpClientError as failure:
        return Outcome(error=_CLIENT_ERRORS.get(failure.reason, "connection_failed"))
    return _to_outcome(target, response)


def _to_outcome(target: Target, response: HttpResponse) -> Outcome:
    status = response.status
    if 200 <= status < 300:
        return Outcome(status)
    code = _S3_CODE.search(response.content) if target.kind == "s3" else None
    error = _S3_ERRORS.get(code.group(1)) if code else None
    if error is None:
        error = "redirected" if 300 <= status < 400 else _STATUS_ERRORS.get(status, "refused")
    retry_after = parse_retry_after(response.headers) if status in (429, 503) else None
    return Outcome(status, error, retry_after)
