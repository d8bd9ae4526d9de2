"""What browsers are told with every answer: not to guess, not to frame, not to keep, and who else may read.

The headers are those that OWASP names for APIs. An answer that says more about itself keeps its own words. No
other site may read answers unless `CORS_ORIGINS` names it; cookies are never asked for, because the only
credentials of this API are sent by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.document import Document
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext

RawHeaders = list[tuple[bytes, bytes]]

PREFLIGHT_MAX_AGE = b"600"

_DEFAULT_HEADERS: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    # Only features that browsers know: of others they complain in the console of every page.
    (
        b"permissions-policy",
        b"accelerometer=(), camera=(), geolocation=(), gyroscope=(), microphone=(), payment=(), usb=()",
    ),
]
_HSTS = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")
# What any request may bring beside what the contract declares, and what any answer shows.
_ALLOW_HEADERS = ("Authorization", "Content-Type", "X-Request-Id", "traceparent", "tracestate")
_EXPOSE_HEADERS = ("Deprecation", "Sunset", "WWW-Authenticate", "X-Request-Id")


def default_headers(public_url: str) -> RawHeaders:
    """Return what every answer carries that does not say otherwise; HTTPS is only insisted on where it is."""
    return [*_DEFAULT_HEADERS, _HSTS] if public_url.startswith("https:") else list(_DEFAULT_HEADERS)


class SecurityHeaders:
    """Adds these headers to every answer. `origins` are the other sites whose scripts may read them.

    `sent` are the headers of requests that the contract declares, `shown` those of answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        public_url: str,
        allow_origins: Collection[str],
        allow_headers: Collection[str],
        expose_headers: Collection[str],
    ) -> None:
        self.app = app
        self._default_headers = default_headers(public_url)
        self._allow_origins = {origin.encode("ascii") for origin in allow_origins}
        self._allow_headers = _join_names({*_ALLOW_HEADERS, *allow_headers})
        self._expose_headers = _join_names({*_EXPOSE_HEADERS, *expose_headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call: RequestContext = scope[REQUEST_CONTEXT]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: RawHeaders = list(message["headers"])
                self._add_defaults(headers, call)
                if self._allow_origins:
                    headers += self._cors_headers(scope, headers)
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _add_defaults(self, headers: RawHeaders, call: RequestContext) -> None:
        present = {name for name, _ in headers}
        headers += [pair for pair in self._default_headers if pair[0] not in present]
        if b"cache-control" not in present:
            headers.append((b"cache-control", _cache_control(call, b"etag" in present)))

    def _cors_headers(self, scope: Scope, headers: RawHeaders) -> RawHeaders:
        added = [(b"vary", b"Origin")]
        asked = dict(scope["headers"])
        origin = asked.get(b"origin")
        if origin is None or origin not in self._allow_origins:
            return added
        added.append((b"access-control-allow-origin", origin))
        methods = dict(headers).get(b"allow")
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in asked and methods:
            return [
                *added,
                (b"access-control-allow-methods", methods),
                (b"access-control-allow-headers", self._allow_headers),
                (b"access-control-max-age", PREFLIGHT_MAX_AGE),
            ]
        return [*added, (b"access-control-expose-headers", self._expose_headers)]


def _cache_control(call: RequestContext, has_etag: bool) -> bytes:
    """An answer with a tag may be kept by whom it was for, and asked about each time; others are not kept."""
    if not has_etag:
        return b"no-store"
    return b"no-cache" if call.operation is not None and call.operation.is_public else b"private, no-cache"


def _join_names(names: Iterable[str]) -> bytes:
    return ", ".join(sorted(names, key=str.lower)).encode("ascii")


def declared_request_headers(contract: Document) -> set[str]:
    """Return the headers that requests may bring."""
    schemes = contract.spec.get("components", {}).get("securitySchemes", {}).values()
    declared = [parameter for raw in contract.operations() for parameter in raw.parameters]
    return {one["name"] for one in [*declared, *schemes] if one.get("in") == "header"}


def declared_response_headers(contract: Document) -> set[str]:
    """Return the headers that answers may have."""
    return {
        name
        for raw in contract.operations()
        for response in raw.definition.get("responses", {}).values()
        for name in contract.resolve(response).get("headers", {})
    }
