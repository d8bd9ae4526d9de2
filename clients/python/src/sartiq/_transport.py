"""Send calls with credentials and retries, with threads and with asyncio.

Both transports have the same steps. What they decide is in `_call`, `_credentials` and `_retries`.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import anyio
import httpx2

from sartiq._call import Call
from sartiq._credentials import Credentials, TokenStore, read_tokens
from sartiq._generated import VERSION
from sartiq._retries import RetryPolicy
from sartiq.errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    UnprocessableError,
    build_error,
)

USER_AGENT = f"sartiq-python/{VERSION}"
NO_CREDENTIALS = (
    "Pass `token`, or `email` and `password`, or set SARTIQ_TOKEN, or SARTIQ_EMAIL and SARTIQ_PASSWORD."
)
logger = logging.getLogger("sartiq")
_warned: set[tuple[str, str]] = set()
_warned_lock = threading.Lock()
# The refresh token is unknown, used, expired or malformed: sign in again if there is a password.
REFRESH_REJECTED = (BadRequestError, AuthenticationError, UnprocessableError)


@dataclass(frozen=True)
class Options:
    """What clients that share a connection pool may have differently."""

    base_url: str
    timeout: float = 60.0
    organization_id: str | None = None
    retries: RetryPolicy = field(default_factory=RetryPolicy)


def build_request(
    client: httpx2.Client | httpx2.AsyncClient, call: Call, options: Options, token: str | None
) -> httpx2.Request:
    """Return the request of one attempt."""
    body = call.build_body(is_async=isinstance(client, httpx2.AsyncClient))
    headers = {"User-Agent": USER_AGENT, **call.build_headers(), **body.pop("headers", {})}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    timeout = call.timeout if call.timeout is not None else options.timeout
    query = call.build_query(options.organization_id)
    return client.build_request(
        call.method,
        call.build_url(options.base_url),
        params=query or None,
        headers=headers,
        timeout=timeout,
        **body,
    )


def wrap_error(error: httpx2.TransportError) -> APIConnectionError:
    """Return the error of this package."""
    if isinstance(error, httpx2.TimeoutException):
        return APITimeoutError(f"{find_origin(error)} did not respond in time ({type(error).__name__}).")
    # What OpenSSL says when the response is not TLS
    is_plain = "WRONG_VERSION_NUMBER" in str(error)
    reason = "the server does not speak HTTPS" if is_plain else str(error) or type(error).__name__
    return APIConnectionError(f"The request to {find_origin(error)} failed: {reason}")


def find_origin(error: httpx2.TransportError) -> str:
    """Return the server of the request that failed. The rest of a presigned URL is a secret."""
    try:
        url = error.request.url
    except RuntimeError:
        return "the server"
    return f"{url.scheme}://{url.netloc.decode()}"


def warn_if_deprecated(call: Call, response: httpx2.Response) -> None:
    """Log a warning for the first response of a deprecated operation (RFC 9745) in this process."""
    since, operation = response.headers.get("deprecation"), (call.method, call.target)
    # A complete URL may be that of another server, and is a secret if it is presigned.
    if since is None or call.target.startswith(("http://", "https://")):
        return
    with _warned_lock:
        if operation in _warned:
            return
        _warned.add(operation)
    text = f"{call.method} {call.target} is deprecated"
    if match := re.fullmatch(r"@(\d{1,11})", since):
        text += f" since {dt.datetime.fromtimestamp(int(match[1]), dt.UTC):%Y-%m-%d}"
    if sunset := response.headers.get("sunset"):
        text += f", and ends on {sunset}"
    found = re.findall(r'<([^<>]*)>; rel="(deprecation|successor-version)"', response.headers.get("link", ""))
    links = {relation: url for url, relation in found}
    for relation, label in (("successor-version", "Use"), ("deprecation", "See")):
        text += f". {label} {links[relation]}" if relation in links else ""
    logger.warning("%s.", text)


@dataclass
class Transport:
    """Send calls from any thread."""

    http: httpx2.Client
    options: Options
    credentials: Credentials
    sleep: Callable[[float], object] = time.sleep
    lock: threading.Lock = field(default_factory=threading.Lock)

    def with_options(self, options: Options) -> Transport:
        """Return a transport with other options, which shares connections, credentials and the lock."""
        return Transport(self.http, options, self.credentials, self.sleep, self.lock)

    def send(self, call: Call, *, stream: bool = False) -> httpx2.Response:
        """Return the successful response. With `stream`, its body is not read yet.

        Raises:
            APIError: The server returned a problem, also after the last retry.
            APIConnectionError: There was no complete response, also after the last retry.
        """
        call, attempt, renewed = call.with_key(), 0, False
        while True:
            token = None if call.public else self.get_token()
            try:
                response = self._attempt(call, token, stream)
            except httpx2.TransportError as error:
                delay = self.options.retries.after_error(call, attempt, error)
                if delay is None:
                    raise wrap_error(error) from error
            else:
                warn_if_deprecated(call, response)
                if response.is_success:
                    return response
                problem = build_error(response.status_code, response.content, response.headers)
                if problem.status == 401 and token and not renewed and self.renew_token(token):
                    renewed = True
                    continue
                delay = self.options.retries.after_response(call, attempt, problem)
                if delay is None:
                    raise problem
            self.sleep(delay)
            attempt += 1

    def _attempt(self, call: Call, token: str | None, stream: bool) -> httpx2.Response:
        response = self.http.send(build_request(self.http, call, self.options, token), stream=True)
        if not (stream and response.is_success):
            try:
                response.read()
            finally:
                response.close()
        return response

    def get_token(self) -> str:
        """Return an access token that is valid for the next seconds.

        Raises:
            ConfigurationError: There are no credentials.
        """
        tokens = self.credentials.tokens
        if tokens is None or (not tokens.is_fresh and self.credentials.can_renew):
            self.renew_token(tokens.access_token if tokens else None)
        if self.credentials.tokens is None:
            raise ConfigurationError(NO_CREDENTIALS)
        return self.credentials.tokens.access_token

    def renew_token(self, stale: str | None) -> bool:
        """Replace an access token, once for all threads that wait; return whether there is a new one.

        Raises:
            AuthenticationError: The password is wrong.
        """
        credentials = self.credentials
        store_lock = credentials.store.lock() if credentials.store else nullcontext()
        with self.lock, store_lock:
            if (credentials.tokens.access_token if credentials.tokens else None) != stale:
                return True  # another thread was faster
            credentials.reload()
            if (
                credentials.tokens
                and credentials.tokens.access_token != stale
                and credentials.tokens.is_fresh
            ):
                return True  # another process was faster
            if (refresh := credentials.build_refresh()) is not None:
                try:
                    credentials.replace(read_tokens(self.send(refresh).json()))
                except REFRESH_REJECTED:
                    if credentials.password is None:
                        credentials.replace(None)
                        raise
                else:
                    return True
            if (sign_in := credentials.build_sign_in()) is not None:
                credentials.replace(read_tokens(self.send(sign_in).json()))
                return True
            return False


@asynccontextmanager
async def lock_store(store: TokenStore | None) -> AsyncIterator[None]:
    """Keep other processes from renewing the tokens. The event loop does not wait for them."""
    lock = store.lock() if store else nullcontext()
    await anyio.to_thread.run_sync(lock.__enter__)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


@dataclass
class AsyncTransport:
    """Send calls from tasks of one event loop (asyncio or trio)."""

    http: httpx2.AsyncClient
    options: Options
    credentials: Credentials
    lock: anyio.Lock = field(default_factory=anyio.Lock)

    def with_options(self, options: Options) -> AsyncTransport:
        """Return a transport with other options, which shares connections, credentials and the lock."""
        return AsyncTransport(self.http, options, self.credentials, self.lock)

    async def send(self, call: Call, *, stream: bool = False) -> httpx2.Response:
        """Return the successful response. With `stream`, its body is not read yet.

        Raises:
            APIError: The server returned a problem, also after the last retry.
            APIConnectionError: There was no complete response, also after the last retry.
        """
        call, attempt, renewed = call.with_key(), 0, False
        while True:
            token = None if call.public else await self.get_token()
            try:
                response = await self._attempt(call, token, stream)
            except httpx2.TransportError as error:
                delay = self.options.retries.after_error(call, attempt, error)
                if delay is None:
                    raise wrap_error(error) from error
            else:
                warn_if_deprecated(call, response)
                if response.is_success:
                    return response
                problem = build_error(response.status_code, response.content, response.headers)
                if problem.status == 401 and token and not renewed and await self.renew_token(token):
                    renewed = True
                    continue
                delay = self.options.retries.after_response(call, attempt, problem)
                if delay is None:
                    raise problem
            await anyio.sleep(delay)
            attempt += 1

    async def _attempt(self, call: Call, token: str | None, stream: bool) -> httpx2.Response:
        response = await self.http.send(build_request(self.http, call, self.options, token), stream=True)
        if not (stream and response.is_success):
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response

    async def get_token(self) -> str:
        """Return an access token that is valid for the next seconds.

        Raises:
            ConfigurationError: There are no credentials.
        """
        tokens = self.credentials.tokens
        if tokens is None or (not tokens.is_fresh and self.credentials.can_renew):
            await self.renew_token(tokens.access_token if tokens else None)
        if self.credentials.tokens is None:
            raise ConfigurationError(NO_CREDENTIALS)
        return self.credentials.tokens.access_token

    async def renew_token(self, stale: str | None) -> bool:
        """Replace an access token, once for all tasks that wait; return whether there is a new one.

        Raises:
            AuthenticationError: The password is wrong.
        """
        credentials = self.credentials
        async with self.lock, lock_store(credentials.store):
            if (credentials.tokens.access_token if credentials.tokens else None) != stale:
                return True  # another task was faster
            credentials.reload()
            if (
                credentials.tokens
                and credentials.tokens.access_token != stale
                and credentials.tokens.is_fresh
            ):
                return True  # another process was faster
            if (refresh := credentials.build_refresh()) is not None:
                try:
                    credentials.replace(read_tokens((await self.send(refresh)).json()))
                except REFRESH_REJECTED:
                    if credentials.password is None:
                        credentials.replace(None)
                        raise
                else:
                    return True
            if (sign_in := credentials.build_sign_in()) is not None:
                credentials.replace(read_tokens((await self.send(sign_in)).json()))
                return True
            return False
