"""Sign requests to S3-compatible servers (AWS Signature Version 4, with a hash of the payload).

The SDKs of cloud providers open connections of their own, which would bypass the guarded HTTP client: they
follow redirects and read endpoints from the environment. So requests to a customer's server are signed here.
Knows neither connections nor the database.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "s3"
UNSIGNED_HEADERS = frozenset({"user-agent"})
"""Proxies may change them. The SDKs of AWS do not sign them, and some servers ignore them in a signature."""


@dataclass(frozen=True)
class AccessKey:
    """The credentials of an account at an S3-compatible server, and the region that signatures name."""

    access_key_id: str
    secret_access_key: str
    region: str


def encode_path(path: str) -> str:
    """Percent-encode the path of a URL as S3 does: all bytes except unreserved characters and slashes."""
    return quote(path, safe="/-_.~")


def sign_headers(
    key: AccessKey, method: str, url: str, headers: Mapping[str, str], payload_hash: str, now: datetime
) -> dict[str, str]:
    """Return the headers of a request with its signature.

    Args:
        key: The credentials.
        method: The method.
        url: The URL, with a path from `encode_path` and without a query.
        headers: Other headers; all of them are signed except `UNSIGNED_HEADERS`.
        payload_hash: The SHA-256 of the body in hexadecimal. The server compares it with what it received.
        now: The time of the request, in UTC. Servers accept clocks that differ by 15 minutes.
    """
    parts = urlsplit(url)
    time = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "x-amz-content-sha256": payload_hash, "x-amz-date": time}
    canonical = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
    canonical = {name: value for name, value in canonical.items() if name not in UNSIGNED_HEADERS}
    canonical["host"] = _host(url)
    names = ";".join(sorted(canonical))
    lines = [method, parts.path or "/", "", *(f"{name}:{canonical[name]}" for name in sorted(canonical))]
    request = "\n".join([*lines, "", names, payload_hash])
    scope = f"{time[:8]}/{key.region}/{SERVICE}/aws4_request"
    text = "\n".join([ALGORITHM, time, scope, hashlib.sha256(request.encode()).hexdigest()])
    signature = hmac.new(_signing_key(key, time[:8]), text.encode(), hashlib.sha256).hexdigest()
    credential = f"{ALGORITHM} Credential={key.access_key_id}/{scope}"
    return {**sent, "Authorization": f"{credential}, SignedHeaders={names}, Signature={signature}"}


def _host(url: str) -> str:
    """Return the Host header that the HTTP client sends: without the default port of the scheme."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = (parts.hostname or "").lower()
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


def _signing_key(key: AccessKey, date: str) -> bytes:
    signing_key = f"AWS4{key.secret_access_key}".encode()
    for part in (date, key.region, SERVICE, "aws4_request"):
        signing_key = hmac.new(signing_key, part.encode(), hashlib.sha256).digest()
    return signing_key
