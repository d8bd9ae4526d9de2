"""Add the security headers that OWASP recommends for APIs, Cache-Control, and the CORS headers.

A header that the response already has is kept. No other site may read responses unless `CORS_ORIGINS` lists
it. Cookies are never allowed: this API authenticates by the Authorization header only.
`docs/decisions/0006-own-cors-headers.md` explains why Starlette's CORSMiddleware is not used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.document import Document
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext

RawHeaders = list[tuple[bytes, bytes]]

PREFLIGHT_MAX_AGE = b"600"
"""Seconds that a browser may cache a preflight response."""

_DEFAULT_HEADERS: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    # Only features that browsers know: they log a warning on every page for an unknown one.
    (
        b"permissions-policy",
        b"accelerometer=(), camera=(), geolocation=(), gyroscope=(), microphone=(), payment=(), usb=()",
    ),
]
_HSTS = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")
# In addition to the headers that the contract declares.
_ALLOW_HEADERS = ("Authorization", "Content-Type", "X-Request-Id", "traceparent", "tracestate")
_EXPOSE_HEADERS = ("Deprecation", "Sunset", "WWW-Authenticate", "X-Request-Id")


def default_headers(public_url: str) -> RawHeaders:
    """Return the default headers of every response; HSTS only if the public URL is HTTPS."""
    return [*_DEFAULT_HEADERS, _HSTS] if public_url.startswith("https:") else list(_DEFAULT_HEADERS)


class SecurityHeaders:
    """Add security, caching and CORS headers to every response.

    Args:
        public_url: the URL of the server; HTTPS enables HSTS.
        allow_origins: exact origins of the sites whose scripts may read responses.
        allow_headers: request headers that the contract declares.
        expose_headers: response headers that the contract declares.
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
        context: RequestContext = scope[REQUEST_CONTEXT]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: RawHeaders = list(message["headers"])
                self._add_defaults(headers, context)
                if self._allow_origins:
                    headers += self._cors_headers(scope, headers)
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _add_defaults(self, headers: RawHeaders, context: RequestContext) -> None:
        present = {name for name, _ in headers}
        headers += [pair for pair in self._default_headers if pair[0] not in present]
        if b"cache-control" not in present:
            headers.append((b"cache-control", _cache_control(context, b"etag" in present)))

    def _cors_headers(self, scope: Scope, headers: RawHeaders) -> RawHeaders:
        if any(name == b"access-control-allow-origin" for name, _ in headers):
            return []  # Published images can be read by scripts of all sites.
        # On every response, even without an Origin: caches must not serve one origin's copy to another.
        cors_headers = [(b"vary", b"Origin")]
        request_headers = dict(scope["headers"])
        origin = request_headers.get(b"origin")
        if origin is None or origin not in self._allow_origins:
            return cors_headers
        cors_headers.append((b"access-control-allow-origin", origin))
        # Routing answers OPTIONS with the methods that the contract has for the path.
        methods = dict(headers).get(b"allow")
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in request_headers and methods:
            return [
                *cors_headers,
                (b"access-control-allow-methods", methods),
                (b"access-control-allow-headers", self._allow_headers),
                (b"access-control-max-age", PREFLIGHT_MAX_AGE),
            ]
        return [*cors_headers, (b"access-control-expose-headers", self._expose_headers)]


def _cache_control(context: RequestContext, has_etag: bool) -> bytes:
    """Return the default Cache-Control: responses with an ETag may be cached and must be revalidated."""
    if not has_etag:
        return b"no-store"
    return (
        b"no-cache" if context.operation is not None and context.operation.is_public else b"private, no-cache"
    )


def _join_names(names: Iterable[str]) -> bytes:
    return ", ".join(sorted(names, key=str.lower)).encode("ascii")


def declared_request_headers(contract: Document) -> set[str]:
    """Return the request headers that the contract declares, including those of its security schemes."""
    schemes = contract.spec.get("components", {}).get("securitySchemes", {}).values()
    parameters = [parameter for raw in contract.operations() for parameter in raw.parameters]
    return {declared["name"] for declared in [*parameters, *schemes] if declared.get("in") == "header"}


def declared_response_headers(contract: Document) -> set[str]:
    """Return the response headers that the contract declares."""
    return {
        name
        for raw in contract.operations()
        for response in raw.definition.get("responses", {}).values()
        for name in contract.resolve(response).get("headers", {})
    }
