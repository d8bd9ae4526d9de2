"""What browsers are told with every answer: not to guess, not to frame, not to keep, and who else may read.

The headers are those that OWASP names for APIs. An answer that says more about itself keeps its own words. No
other site may read answers unless `CORS_ORIGINS` names it; cookies are never asked for, because the only
credentials of this API are sent by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.bundle import Bundle
from handlers.contract.call import CALL, Call

RawHeaders = list[tuple[bytes, bytes]]

PREFLIGHT_SECONDS = b"600"

_ALWAYS: RawHeaders = [
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
_TWO_YEARS_OF_HTTPS = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")
# What any request may bring beside what the contract declares, and what any answer shows.
_SENT = ("Authorization", "Content-Type", "X-Request-Id", "traceparent", "tracestate")
_SHOWN = ("Deprecation", "Sunset", "WWW-Authenticate", "X-Request-Id")


def headers_of_every_answer(public_url: str) -> RawHeaders:
    """Return what every answer carries that does not say otherwise; HTTPS is only insisted on where it is."""
    return [*_ALWAYS, _TWO_YEARS_OF_HTTPS] if public_url.startswith("https:") else list(_ALWAYS)


class Surface:
    """Adds these headers to every answer. `origins` are the other sites whose scripts may read them.

    `sent` are the headers of requests that the contract declares, `shown` those of answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        public_url: str,
        origins: Collection[str],
        sent: Collection[str],
        shown: Collection[str],
    ) -> None:
        self.app = app
        self._always = headers_of_every_answer(public_url)
        self._origins = {origin.encode("ascii") for origin in origins}
        self._sent = _joined({*_SENT, *sent})
        self._shown = _joined({*_SHOWN, *shown})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call: Call = scope[CALL]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: RawHeaders = list(message["headers"])
                self._complete(headers, call)
                if self._origins:
                    headers += self._for_other_sites(scope, headers)
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _complete(self, headers: RawHeaders, call: Call) -> None:
        present = {name for name, _ in headers}
        headers += [pair for pair in self._always if pair[0] not in present]
        if b"cache-control" not in present:
            headers.append((b"cache-control", _caching(call, b"etag" in present)))

    def _for_other_sites(self, scope: Scope, headers: RawHeaders) -> RawHeaders:
        added = [(b"vary", b"Origin")]
        asked = dict(scope["headers"])
        origin = asked.get(b"origin")
        if origin is None or origin not in self._origins:
            return added
        added.append((b"access-control-allow-origin", origin))
        methods = dict(headers).get(b"allow")
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in asked and methods:
            return [
                *added,
                (b"access-control-allow-methods", methods),
                (b"access-control-allow-headers", self._sent),
                (b"access-control-max-age", PREFLIGHT_SECONDS),
            ]
        return [*added, (b"access-control-expose-headers", self._shown)]


def _caching(call: Call, has_etag: bool) -> bytes:
    """An answer with a tag may be kept by whom it was for, and asked about each time; others are not kept."""
    if not has_etag:
        return b"no-store"
    return b"no-cache" if call.operation is not None and call.operation.is_open else b"private, no-cache"


def _joined(names: Iterable[str]) -> bytes:
    return ", ".join(sorted(names, key=str.lower)).encode("ascii")


def headers_of_requests(contract: Bundle) -> set[str]:
    """Return the headers that requests may bring."""
    schemes = contract.document.get("components", {}).get("securitySchemes", {}).values()
    declared = [parameter for raw in contract.operations() for parameter in raw.parameters]
    return {one["name"] for one in [*declared, *schemes] if one.get("in") == "header"}


def headers_of_answers(contract: Bundle) -> set[str]:
    """Return the headers that answers may have."""
    return {
        name
        for raw in contract.operations()
        for response in raw.definition.get("responses", {}).values()
        for name in contract.resolve(response).get("headers", {})
    }
