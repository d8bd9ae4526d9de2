"""The clients: `Sartiq` for threads and `AsyncSartiq` for asyncio."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self

import anyio
import httpx2

from sartiq._call import Call
from sartiq._configuration import change_options, describe_upload, resolve_credentials, resolve_url
from sartiq._credentials import Otp, TokenStore, read_tokens
from sartiq._generated import models
from sartiq._generated.async_resources import AsyncResources
from sartiq._generated.resources import Resources
from sartiq._model import OMIT, FileInput, Omit
from sartiq._resource import AsyncResource, Resource
from sartiq._retries import RetryPolicy
from sartiq._transport import NO_CREDENTIALS, AsyncTransport, Options, Transport
from sartiq._waiting import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SERVER_WAIT,
    J,
    Outage,
    check_job,
    check_success,
    describe_timeout,
    has_ended,
)
from sartiq.errors import AuthenticationError, ConfigurationError, NotModifiedError, SartiqError

DEFAULT_WAIT = 600.0


class Sartiq(Resources):
    """A client of the Sartiq Backend API. All threads of a program can share one.

    Each attribute has the operations of one tag of the contract, such as `client.products.create_product`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        email: str | None = None,
        password: str | None = None,
        organization_id: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 4,
        token_store: TokenStore | None = None,
        http_client: httpx2.Client | None = None,
    ) -> None:
        """Prepare a client. It connects with the first request.

        Args:
            base_url: URL of the server; by default SARTIQ_URL, or http://localhost:8000.
            token: API key or access token; by default SARTIQ_TOKEN.
            email: E-mail address to sign in with; by default SARTIQ_EMAIL.
            password: Password to sign in with; by default SARTIQ_PASSWORD.
            organization_id: Organization of each operation that takes one, unless you pass another there.
            timeout: Seconds to wait for a connection and for each part of a response.
            max_retries: How often a request is sent again after the first attempt.
            token_store: Where the tokens of a session are kept between processes.
            http_client: A client of httpx2 with your own proxy or certificates. You close it.
        """
        self._owns_http = http_client is None
        http = http_client or httpx2.Client()
        options = Options(resolve_url(base_url), timeout, organization_id, RetryPolicy(max_retries))
        self._use(Transport(http, options, resolve_credentials(token, email, password, token_store)))

    def _use(self, transport: Transport) -> None:
        self._transport = transport
        super().__init__(Resource(transport))

    @property
    def base_url(self) -> str:
        """Return the URL that the paths of the contract are relative to."""
        return self._transport.options.base_url

    @property
    def organization_id(self) -> str | None:
        """Return the organization of each operation that takes one, unless you pass another there."""
        return self._transport.options.organization_id

    def with_options(
        self,
        *,
        organization_id: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> Self:
        """Return a client with other options, which shares the session and connections of this one.

        Closing one of them closes the connections of both.
        """
        other = object.__new__(type(self))
        other._owns_http = self._owns_http
        other._use(
            self._transport.with_options(
                change_options(self._transport.options, organization_id, timeout, max_retries)
            )
        )
        return other

    def sign_in(
        self, email: str | None = None, password: str | None = None, *, otp: Otp | None = None
    ) -> None:
        """Start a session now. Without this, the first request does it. The session is renewed as needed.

        Args:
            email: The e-mail address of the account, by default that of the client.
            password: Its password.
            otp: A code of the authenticator app or a recovery code, for an account with a second factor, or a
                function that asks for one.

        Raises:
            AuthenticationError: The password or the code is wrong, or the account needs a code.
            ConfigurationError: There is no password.
        """
        credentials = self._transport.credentials
        if email is not None and password is not None:
            credentials.email, credentials.password = email, password
        call = credentials.build_sign_in()
        if call is None:
            raise ConfigurationError(NO_CREDENTIALS)
        try:
            response = self._transport.send(call)
        except AuthenticationError as error:
            second = credentials.build_second_step(error.problem, otp)
            if second is None:
                raise
            response = self._transport.send(second)
        credentials.replace(read_tokens(response.json()))

    def sign_out(self) -> None:
        """End the session on the server, and forget its tokens and the password."""
        credentials = self._transport.credentials
        credentials.password = None
        if credentials.tokens and credentials.tokens.refresh_token:
            self.login.revoke_token(token=credentials.tokens.refresh_token)
        credentials.replace(None)

    def upload(self, file: FileInput, *, content_type: str | None = None) -> str:
        """Upload a file of any size and return its `file_url`, for every property that takes one.

        Args:
            file: A path (`str` or `Path`), bytes, an open binary file, or a name and bytes.
            content_type: Media type; by default that of the file name.
        """
        name, size, content_type = describe_upload(file, content_type)
        target = self.uploads.create_presigned_url(filename=name, content_type=content_type, size=size)  # type: ignore[arg-type] # the server checks it
        self._transport.send(
            Call(
                target.upload_method, target.upload_url, content=file, content_type=content_type, public=True
            )
        )
        return target.file_url

    def wait(
        self, job: J, *, on_progress: Callable[[J], object] | None = None, timeout: float = DEFAULT_WAIT
    ) -> J:
        """Wait until a generation, export or product import was completed, and return its last state.

        It goes on while the server is unreachable for up to two minutes, for example during a restart.

        Args:
            job: The resource that the operation returned.
            on_progress: Called with each new state.
            timeout: Seconds after which you get an error. The work continues on the server.

        Raises:
            JobFailedError: It ended in another way; `error.resource` has the cause.
            WaitTimeoutError: It has not ended in time.
            APIConnectionError, ServerError: The server has not been reachable for two minutes.
        """
        check_job(job)
        deadline, pause, etag, outage = time.monotonic() + timeout, FIRST_PAUSE, None, Outage()
        while not has_ended(job):
            left = deadline - time.monotonic()
            if left <= 0:
                raise describe_timeout(job, timeout)
            is_held = isinstance(job, models.Generation)
            try:
                loaded = self._reload(job, etag, left)
            except NotModifiedError:
                outage.end()
            except SartiqError as error:
                outage.check(error, time.monotonic())
                is_held = False  # the server did not hold this request
            else:
                job, etag = loaded, loaded.http.etag
                outage.end()
                if on_progress is not None:
                    on_progress(job)
            if not is_held and not has_ended(job):
                self._transport.sleep(max(0.0, min(pause, deadline - time.monotonic())))
                pause = min(2 * pause, LONGEST_PAUSE)
        check_success(job)
        return job

    def _reload(self, job: Any, etag: str | None, left: float) -> Any:
        known: str | Omit = OMIT if etag is None else etag
        if isinstance(job, models.Generation):
            seconds = max(1, min(SERVER_WAIT, int(left)))
            timeout = seconds + self._transport.options.timeout
            return self.generations.get_generation(
                job.id, prefer=f"wait={seconds}", timeout=timeout, if_none_match=known
            )
        if isinstance(job, models.Export):
            return self.exports.get_export(job.id, if_none_match=known)
        return self.product_imports.get_product_import(job.id, if_none_match=known)

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._transport.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSartiq(AsyncResources):
    """A client of the Sartiq Backend API for asyncio and trio. Its methods are those of `Sartiq`."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        email: str | None = None,
        password: str | None = None,
        organization_id: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 4,
        token_store: TokenStore | None = None,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        """Prepare a client. It connects with the first request. The arguments are those of `Sartiq`."""
        self._owns_http = http_client is None
        http = http_client or httpx2.AsyncClient()
        options = Options(resolve_url(base_url), timeout, organization_id, RetryPolicy(max_retries))
        credentials = resolve_credentials(token, email, password, token_store)
        self._use(AsyncTransport(http, options, credentials))

    def _use(self, transport: AsyncTransport) -> None:
        self._transport = transport
        super().__init__(AsyncResource(transport))

    @property
    def base_url(self) -> str:
        """Return the URL that the paths of the contract are relative to."""
        return self._transport.options.base_url

    @property
    def organization_id(self) -> str | None:
        """Return the organization of each operation that takes one, unless you pass another there."""
        return self._transport.options.organization_id

    def with_options(
        self,
        *,
        organization_id: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> Self:
        """Return a client with other options, which shares the session and connections of this one.

        Closing one of them closes the connections of both.
        """
        other = object.__new__(type(self))
        other._owns_http = self._owns_http
        other._use(
            self._transport.with_options(
                change_options(self._transport.options, organization_id, timeout, max_retries)
            )
        )
        return other

    async def sign_in(
        self, email: str | None = None, password: str | None = None, *, otp: Otp | None = None
    ) -> None:
        """Start a session now. Without this, the first request does it. The session is renewed as needed.

        Args:
            email: The e-mail address of the account, by default that of the client.
            password: Its password.
            otp: A code of the authenticator app or a recovery code, for an account with a second factor, or a
                function that asks for one.

        Raises:
            AuthenticationError: The password or the code is wrong, or the account needs a code.
            ConfigurationError: There is no password.
        """
        credentials = self._transport.credentials
        if email is not None and password is not None:
            credentials.email, credentials.password = email, password
        call = credentials.build_sign_in()
        if call is None:
            raise ConfigurationError(NO_CREDENTIALS)
        try:
            response = await self._transport.send(call)
        except AuthenticationError as error:
            second = credentials.build_second_step(error.problem, otp)
            if second is None:
                raise
            response = await self._transport.send(second)
        credentials.replace(read_tokens(response.json()))

    async def sign_out(self) -> None:
        """End the session on the server, and forget its tokens and the password."""
        credentials = self._transport.credentials
        credentials.password = None
        if credentials.tokens and credentials.tokens.refresh_token:
            await self.login.revoke_token(token=credentials.tokens.refresh_token)
        credentials.replace(None)

    async def upload(self, file: FileInput, *, content_type: str | None = None) -> str:
        """Upload a file of any size and return its `file_url`, for every property that takes one."""
        name, size, content_type = describe_upload(file, content_type)
        target = await self.uploads.create_presigned_url(filename=name, content_type=content_type, size=size)  # type: ignore[arg-type] # the server checks it
        await self._transport.send(
            Call(
                target.upload_method, target.upload_url, content=file, content_type=content_type, public=True
            )
        )
        return target.file_url

    async def wait(
        self,
        job: J,
        *,
        on_progress: Callable[[J], Awaitable[object] | object] | None = None,
        timeout: float = DEFAULT_WAIT,
    ) -> J:
        """Wait until a generation, export or product import was completed, and return its last state.

        It goes on while the server is unreachable for up to two minutes, for example during a restart.

        Args:
            job: The resource that the operation returned.
            on_progress: Called, and awaited if it is a coroutine, with each new state.
            timeout: Seconds after which you get an error. The work continues on the server.

        Raises:
            JobFailedError: It ended in another way; `error.resource` has the cause.
            WaitTimeoutError: It has not ended in time.
            APIConnectionError, ServerError: The server has not been reachable for two minutes.
        """
        check_job(job)
        deadline, pause, etag, outage = time.monotonic() + timeout, FIRST_PAUSE, None, Outage()
        while not has_ended(job):
            left = deadline - time.monotonic()
            if left <= 0:
                raise describe_timeout(job, timeout)
            is_held = isinstance(job, models.Generation)
            try:
                loaded = await self._reload(job, etag, left)
            except NotModifiedError:
                outage.end()
            except SartiqError as error:
                outage.check(error, time.monotonic())
                is_held = False  # the server did not hold this request
            else:
                job, etag = loaded, loaded.http.etag
                outage.end()
                if on_progress is not None and isawaitable(called := on_progress(job)):
                    await called
            if not is_held and not has_ended(job):
                await anyio.sleep(max(0.0, min(pause, deadline - time.monotonic())))
                pause = min(2 * pause, LONGEST_PAUSE)
        check_success(job)
        return job

    async def _reload(self, job: Any, etag: str | None, left: float) -> Any:
        known: str | Omit = OMIT if etag is None else etag
        if isinstance(job, models.Generation):
            seconds = max(1, min(SERVER_WAIT, int(left)))
            timeout = seconds + self._transport.options.timeout
            return await self.generations.get_generation(
                job.id, prefer=f"wait={seconds}", timeout=timeout, if_none_match=known
            )
        if isinstance(job, models.Export):
            return await self.exports.get_export(job.id, if_none_match=known)
        return await self.product_imports.get_product_import(job.id, if_none_match=known)

    async def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._transport.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
