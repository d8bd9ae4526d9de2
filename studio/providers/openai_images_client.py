"""The HTTP client of servers that speak the Images API: send requests, check everything that comes back.

Every failure becomes one of four errors: the request is rejected (`RequestRejected`), its content is
rejected (`ContentRejected`), it has to wait (`RateLimited`), or the server failed (`ServerFailed`). A circuit
breaker for each server counts the last kind. Error texts of the server are never logged or shown, because
they can repeat credentials: only the status and the error code are.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from db.errors import TargetNotAllowed
from studio.infrastructure.http_client import HttpClientError, HttpResponse, SafeHttpClient
from studio.infrastructure.telemetry.context import current_trace_headers
from studio.media.stored_image import MAX_FILE_BYTES
from studio.providers.openai_images import (
    EditRequest,
    ImagesConfig,
    ImagesUnavailable,
    RequestRejected,
    build_body,
)

if TYPE_CHECKING:
    from studio.providers.circuit_breaker import CircuitBreaker

IMAGE_TIMEOUT_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 600.0
CIRCUIT_FAILURE_THRESHOLD = 5
CIRCUIT_OPEN_SECONDS = 30.0
_MAX_RESPONSE_BYTES = 64_000_000
_BYTES_PER_IMAGE = 24_000_000
_REJECTIONS = frozenset(
    {"moderation_blocked", "content_policy_violation", "content_filter", "contentfilter", "safety_violation"}
)
_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_USAGE = ("input_tokens", "output_tokens", "total_tokens")


class ContentRejected(RequestRejected):
    """The server's moderation rejects the prompt, the images or the result."""


class RateLimited(RequestRejected):
    """The server accepts the request later; `retry_after` is the time in seconds that it names."""

    max_failures = 8

    def __init__(self, message: str, retry_after: float | None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class ServerFailed(ImagesUnavailable):
    """The server or the network failed. The same request may succeed."""

    max_failures = 2


@dataclass(frozen=True)
class ReceivedImage:
    """An image as it was received, not checked yet."""

    data: bytes
    usage: Mapping[str, int]
    """The tokens of the request that made it, as the server counts them; empty if it does not say."""
    request_images: int
    """How many images that request made."""


class ImagesClient:
    """The client of all Images APIs. Each process has one, which its threads share."""

    def __init__(self, client: SafeHttpClient) -> None:
        self._client = client
        self._circuit_breakers: dict[str, CircuitBreaker] = {}

    def render(self, config: ImagesConfig, request: EditRequest, count: int, key: str) -> list[ReceivedImage]:
        """Return at least one and at most `count` images.

        Args:
            config: The server and its model.
            request: What to render.
            count: The number of images to request.
            key: The `Idempotency-Key`: servers that know the header do not charge a repetition.

        Raises:
            ImagesUnavailable: There is no usable response.
        """
        body = build_body(config, request, count)
        headers = {
            "Accept": "application/json",
            "Content-Type": body.content_type,
            "Idempotency-Key": key,
            **current_trace_headers(),
        }
        if config.api_key:
            headers["Authorization"] = f"Bearer {config.api_key}"
        with self._circuit_breaker(config.base_url):
            response = self._send(
                "POST",
                config.base_url + body.path,
                headers=headers,
                content=body.content,
                timeout_seconds=float(config.timeout_seconds),
                max_bytes=min(_MAX_RESPONSE_BYTES, count * _BYTES_PER_IMAGE),
            )
            answer = _parse_response(response)
        items = answer["data"][:count]
        usage = _parse_usage(answer.get("usage"))
        return [ReceivedImage(self._load(item), usage, len(items)) for item in items]

    def _load(self, item: Any) -> bytes:
        """Return the bytes of one entry of `data`: decoded base64, or the content of its URL."""
        encoded = item.get("b64_json") if isinstance(item, dict) else None
        url = item.get("url") if isinstance(item, dict) else None
        if isinstance(encoded, str) and encoded:
            try:
                return base64.b64decode(encoded, validate=True)
            except ValueError as error:
                raise ServerFailed("an image is not valid base64") from error
        if not isinstance(url, str):
            raise ServerFailed("the response has an entry without an image")
        # Without credentials: the URL is content of the response and may lead to any server.
        response = self._send(
            "GET", url, timeout_seconds=IMAGE_TIMEOUT_SECONDS, max_bytes=MAX_FILE_BYTES, redirects=3
        )
        if response.status != 200:
            raise ServerFailed(f"an image cannot be downloaded: HTTP {response.status}")
        return response.content

    def _send(self, method: str, url: str, **options: Any) -> HttpResponse:
        try:
            return self._client.send(method, url, **options)
        except TargetNotAllowed as error:
            raise RequestRejected("the URL of the server or of an image is not allowed") from error
        except HttpClientError as error:
            if error.reason == "too_large":
                # Another request would make, and charge, the same again.
                raise RequestRejected(str(error)) from error
            raise ServerFailed(str(error)) from error

    @contextmanager
    def _circuit_breaker(self, base_url: str) -> Iterator[None]:
        """Count the outcome of the block; raise ImagesUnavailable at once while the circuit is open."""
        # Imported on the first request: pybreaker loads the Redis client, which servers start without.
        from studio.providers.circuit_breaker import CircuitBreakerError, build_circuit_breaker

        breaker = self._circuit_breakers.get(base_url)
        if breaker is None:
            breaker = build_circuit_breaker(
                base_url, CIRCUIT_FAILURE_THRESHOLD, CIRCUIT_OPEN_SECONDS, excluded=RequestRejected
            )
            # `setdefault` is atomic: threads that get here at the same time share one breaker.
            breaker = self._circuit_breakers.setdefault(base_url, breaker)
        try:
            with breaker.calling():
                yield
        except CircuitBreakerError as error:
            raise ImagesUnavailable("the circuit is open") from error


def _parse_response(response: HttpResponse) -> dict[str, Any]:
    """Return the body of a successful response, whose `data` is a list that is not empty."""
    if not 200 <= response.status < 300:
        raise _to_error(response)
    body = _parse_json(response.content)
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(data, list) or not data:
        raise ServerFailed("the response contains no images")
    return body


def _to_error(response: HttpResponse) -> ImagesUnavailable:
    status, codes = response.status, _list_codes(response.content)
    message = " ".join([f"HTTP {status}", *sorted(codes)])
    known = {code.lower() for code in codes}
    if known & _REJECTIONS:
        return ContentRejected(message)
    if status == 402 or known & _NO_CREDIT:
        return RequestRejected(message)
    if status == 429:
        return RateLimited(message, _parse_retry_after(response.headers))
    if status in (408, 425) or status >= 500:
        return ServerFailed(message)
    return RequestRejected(message)


def _list_codes(content: bytes) -> set[str]:
    """Return the code and the type of an error response, if they look like names."""
    body = _parse_json(content, allow_invalid=True)
    error = body.get("error") if isinstance(body, dict) else None
    values = [error.get("code"), error.get("type")] if isinstance(error, dict) else []
    return {value for value in values if isinstance(value, str) and _CODE.fullmatch(value)}


def _parse_json(content: bytes, allow_invalid: bool = False) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        if allow_invalid:
            return None
        raise ServerFailed("the response is not JSON") from error


def _parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` names (RFC 9110, section 10.2.3), at most ten minutes."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(MAX_RETRY_AFTER_SECONDS, float(text))
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(MAX_RETRY_AFTER_SECONDS, max(0.0, seconds))


def _parse_usage(usage: Any) -> dict[str, int]:
    if not isinstance(usage, dict):
        return {}
    return {
        name: usage[name]
        for name in _USAGE
        if type(usage.get(name)) is int and 0 <= usage[name] <= 1_000_000_000
    }
