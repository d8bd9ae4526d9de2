"""Return what the application and the request context hold: settings, storage, session, request id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from werkzeug.datastructures import MultiDict

from db.caller import current_caller
from studio.accounts.identity_providers.protocol import OpenIdClient
from studio.infrastructure.fair_slots import FairSlots
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import Storage
from studio.infrastructure.telemetry.context import current_log_context
from studio.rate_limits.concurrency import ConcurrencyLimiter
from studio.rate_limits.limiter import RateLimiter


@dataclass(frozen=True)
class AppServices:
    """What `handlers.app` has built for this application, and code that serves a request looks up.

    Attributes:
        settings: The settings that the application was created with.
        storage: The storage of image and export files.
        http_client: The client for requests to other servers.
        openid_client: The client of identity providers, which caches their keys.
        fetch_slots: The slots for these requests.
        rate_limiter: Counts requests against the rate limits.
        concurrency_limiter: Counts the requests in progress.
        compressed_contract: The contract as the server publishes it, compressed by zlib.
        audit_recorders: The recorder of each audited operation, an `AuditRecorder`. Its type is one of the
            pipeline, which this package does not know.
    """

    settings: Settings
    storage: Storage
    http_client: SafeHttpClient
    openid_client: OpenIdClient
    fetch_slots: FairSlots
    rate_limiter: RateLimiter
    concurrency_limiter: ConcurrencyLimiter
    compressed_contract: bytes
    audit_recorders: Mapping[str, object]


@dataclass(frozen=True)
class HttpRequest:
    """The head of a request.

    Attributes:
        method: The method.
        path: The path, decoded.
        query_string: The query, as the client sent it.
        headers: The headers, names in lower case.
        address: The address of the client, or an empty text.
    """

    method: str
    path: str
    query_string: bytes
    headers: Iterable[tuple[bytes, bytes]]
    address: str

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> HttpRequest:
        """Return the head of the request with an ASGI scope."""
        address = (scope.get("client") or ("",))[0]
        return cls(scope["method"], scope["path"], scope["query_string"], scope["headers"], address)

    @property
    def query(self) -> MultiDict[str, str]:
        """The names and values of the query."""
        text = self.query_string.decode("latin-1")
        return MultiDict(parse_qsl(text, keep_blank_values=True, errors="replace"))

    def find_header(self, name: bytes) -> str | None:
        """Return a header, None if it is absent. Repeated fields are one list (RFC 9110, section 5.2)."""
        values = [value.decode("latin-1") for field, value in self.headers if field == name]
        return ", ".join(values) if values else None


# Context variables, because reads run on the event loop and writes in threads, which copy its context.
_services: ContextVar[AppServices] = ContextVar("services")
_request: ContextVar[HttpRequest] = ContextVar("request")


def use_services(services: AppServices, request: HttpRequest) -> None:
    """Let the running task serve a request with these services."""
    _services.set(services)
    _request.set(request)


def current_services() -> AppServices:
    """Return the services of the running application."""
    return _services.get()


def current_request() -> HttpRequest:
    """Return the head of the running request."""
    return _request.get()


def current_settings() -> Settings:
    """Return the settings that the application was created with."""
    return current_services().settings


def current_http_client() -> SafeHttpClient:
    """Return the client for requests to other servers."""
    return current_services().http_client


def current_openid_client() -> OpenIdClient:
    """Return the client of identity providers."""
    return current_services().openid_client


def current_storage() -> Storage:
    """Return the storage of image and export files."""
    return current_services().storage


def current_session_id() -> UUID:
    """Return the session of the running request.

    Raises:
        RuntimeError: The caller has none. That is a bug: the operation accepts API keys or guests.
    """
    session_id = current_caller().session_id
    if session_id is None:
        raise RuntimeError("the caller has no session")
    return session_id


def current_request_id() -> str:
    """Return the id of the current request, "-" outside of a request."""
    context = current_log_context()
    return (context and context.request_id) or "-"
