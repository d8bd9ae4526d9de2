"""The HTTP client for all requests to other servers, with protection against SSRF (OWASP API7:2023).

A URL is allowed if it uses https and port 443 and every address that its host resolves to is public. The
connection is pinned to an address that was checked, so a later DNS change has no effect (DNS rebinding).
Each redirect is checked again. The time of a whole exchange, DNS included, and the size of the response are
limited. No cookies, no proxies, no decompression.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Literal

import httpcore2
import httpx2

from db.errors import TargetNotAllowed
from studio.infrastructure.settings import Settings
from studio.infrastructure.telemetry.metrics import count_outbound_call

PORT = 443
MAX_URL_LENGTH = 2_048
DNS_TIMEOUT_SECONDS = 5.0
NOT_PUBLIC = "The host is unknown or not on the public internet"
"""One text for both cases, so that callers cannot find out which names exist in the internal network."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_ADDRESSES_TRIED = 3
_CHUNK_BYTES = 16_384
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?|[0-9a-f:.]+")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Networks without public servers that `is_global` accepts, at least in some versions of Python.
_NON_PUBLIC_NETWORKS = [
    ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/3", "3fff::/20")
]
_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")

Resolve = Callable[[str, int], Sequence[str]]
Reason = Literal["unresolved", "timeout", "connection", "protocol", "too_large"]


class HttpClientError(Exception):
    """The exchange failed. `reason` is a stable code for programs. A retry may succeed."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class HttpResponse:
    """A response. Header names are in lower case; repeated headers are joined with commas."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class _Target:
    url: httpx2.URL
    host: str
    port: int
    addresses: tuple[str, ...]


class SafeHttpClient:
    """A client that connects to allowed targets only. It is thread-safe and keeps no connections open.

    Args:
        allowed_hosts: Hosts ("host:port") that may be reached over http or https at any address.
        resolve: Replaces the system's resolver, for tests.
        network: Replaces the system's sockets, for tests.
        ssl_context: Replaces the default TLS settings, for tests.
    """

    def __init__(
        self,
        allowed_hosts: Iterable[str] = (),
        *,
        resolve: Resolve | None = None,
        network: httpcore2.NetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed_hosts = frozenset(allowed_hosts)
        self._resolve = resolve or resolve_host
        self._network = network or httpcore2.SyncBackend()
        self._ssl_context = ssl_context

    @classmethod
    def from_settings(cls, settings: Settings) -> SafeHttpClient:
        """Return the client of a process with these settings."""
        return cls(settings.outbound_allowed_hosts)

    def allowing(self, host: str | None) -> SafeHttpClient:
        """Return a client that also reaches another host ("host:port"); this one if there is none."""
        if host is None:
            return self
        return SafeHttpClient(
            {*self._allowed_hosts, host},
            resolve=self._resolve,
            network=self._network,
            ssl_context=self._ssl_context,
        )

    def require_allowed(self, url: str) -> None:
        """Check that the client would connect to a URL now. Sends nothing, and takes up to
        `DNS_TIMEOUT_SECONDS`.

        Raises:
            TargetNotAllowed: The client would not connect.
        """
        try:
            self._check(url, time.monotonic() + DNS_TIMEOUT_SECONDS)
        except HttpClientError as failure:
            raise TargetNotAllowed(NOT_PUBLIC, value=url) from failure
        except TargetNotAllowed as error:
            error.value = url
            raise

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterator[bytes] = b"",
        timeout_seconds: float,
        max_bytes: int,
        redirects: int = 0,
    ) -> HttpResponse:
        """Send a request and return the response, whatever its status.

        Args:
            method: The method.
            url: The URL.
            headers: Headers for this server; they are not sent to other servers after a redirect.
            content: The body. Chunks of a long one are sent as they are read; `headers` then need
                `Content-Length`, and no redirect can be followed.
            timeout_seconds: The limit for the whole exchange, redirects included.
            max_bytes: The limit for the body of the response.
            redirects: How many redirects are followed. The next redirect is returned as the response.

        Raises:
            TargetNotAllowed: The URL, or that of a redirect, is not allowed.
            HttpClientError: No complete response of at most `max_bytes` arrived in time.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            response = self._follow(method, url, headers, content, deadline, max_bytes, redirects)
        except HttpClientError as failure:
            count_outbound_call(failure.reason)
            raise
        count_outbound_call(f"{response.status // 100}xx")
        return response

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        content: bytes | Iterator[bytes],
        deadline: float,
        max_bytes: int,
        redirects: int,
    ) -> HttpResponse:
        target, own_headers = self._check(url, deadline), dict(headers or {})
        while True:
            response = self._exchange(method, target, own_headers, content, deadline, max_bytes)
            location = response.headers.get("location")
            if redirects == 0 or response.status not in REDIRECTS or not location:
                return response
            redirects -= 1
            next_target = self._check_redirect(target, location, deadline)
            if response.status == 303 or (response.status in (301, 302) and method == "POST"):
                method, content = "GET", b""
            if (next_target.url.scheme, next_target.host, next_target.port) != (
                target.url.scheme,
                target.host,
                target.port,
            ):
                # Headers may hold credentials: they must not reach another server.
                own_headers = {}
            target = next_target

    def _check_redirect(self, target: _Target, location: str, deadline: float) -> _Target:
        try:
            return self._check(str(target.url.join(location)), deadline)
        except (TargetNotAllowed, httpx2.InvalidURL, ValueError) as error:
            # The target is content of the other server's response, which error details must not reveal.
            raise TargetNotAllowed("The URL redirects to a URL that is not allowed") from error

    def _check(self, text: str, deadline: float) -> _Target:
        url = _parse_url(text)
        host = url.raw_host.decode("ascii")
        port = {"http": 80, "https": PORT}.get(url.scheme, 0) if url.port is None else url.port
        if url.scheme not in ("http", "https") or url.userinfo or not _HOST.fullmatch(host):
            raise TargetNotAllowed("Only https URLs without credentials are allowed")
        if f"{host}:{port}" in self._allowed_hosts:
            return _Target(url, host, port, self._resolve_host(host, port, deadline))
        if url.scheme != "https":
            raise TargetNotAllowed("Only https URLs are allowed")
        if port != PORT:
            raise TargetNotAllowed(f"Only port {PORT} is allowed")
        if _is_numeric_host(host):
            raise TargetNotAllowed("The host is an IP address in a notation that is not allowed")
        addresses = self._resolve_host(host, port, deadline)
        if not addresses or not all(is_global_address(address) for address in addresses):
            raise TargetNotAllowed(NOT_PUBLIC)
        return _Target(url, host, port, addresses)

    def _resolve_host(self, host: str, port: int, deadline: float) -> tuple[str, ...]:
        """Resolve a host until the deadline. The system's resolver has no timeout, so it runs in a thread."""
        result: Future[Sequence[str]] = Future()

        def resolve() -> None:
            try:
                result.set_result(self._resolve(host, port))
            except Exception as error:  # noqa: BLE001 - raised in the thread that waits for the result
                result.set_exception(error)

        # If the time is over, the thread ends on its own later.
        threading.Thread(target=resolve, name="resolver", daemon=True).start()
        try:
            return tuple(result.result(max(0.0, min(DNS_TIMEOUT_SECONDS, deadline - time.monotonic()))))
        except TimeoutError as error:
            raise HttpClientError("timeout", "DNS did not answer in time") from error

    def _exchange(
        self,
        method: str,
        target: _Target,
        headers: Mapping[str, str],
        content: bytes | Iterator[bytes],
        deadline: float,
        max_bytes: int,
    ) -> HttpResponse:
        network = _PinnedBackend(self._network, target.addresses, deadline)
        url = httpcore2.URL(
            scheme=target.url.raw_scheme,
            host=target.url.raw_host,
            port=target.url.port,
            target=target.url.raw_path,
        )
        sent_headers = {"Host": target.url.netloc.decode("ascii"), "Accept-Encoding": "identity", **headers}
        # The certificates of the default settings take 4 MB, so they are loaded when TLS is used.
        is_tls = target.url.scheme == "https"
        ssl_context = (self._ssl_context or _default_ssl_context()) if is_tls else None
        try:
            with (
                httpcore2.ConnectionPool(ssl_context=ssl_context, network_backend=network) as pool,
                pool.stream(
                    method, url, headers=list(sent_headers.items()), content=content or None
                ) as response,
            ):
                return HttpResponse(
                    response.status, _to_headers(response), _read_body(response.iter_stream(), max_bytes)
                )
        except httpcore2.TimeoutException as error:
            raise HttpClientError("timeout", "The server did not respond in time") from error
        except httpcore2.NetworkError as error:
            raise HttpClientError("connection", "The connection failed") from error
        except httpcore2.ProtocolError as error:
            raise HttpClientError("protocol", "The server sent an invalid HTTP response") from error


@lru_cache(maxsize=1)
def _default_ssl_context() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def encode_multipart(
    fields: Mapping[str, str], files: Sequence[tuple[str, tuple[str, bytes, str]]]
) -> tuple[str, bytes]:
    """Return the media type and the body of a form with files (RFC 7578).

    Args:
        fields: The values by the names of their fields.
        files: Field name, file name, content and media type of each file.
    """
    request = httpx2.Request("POST", "https://localhost", data=dict(fields), files=list(files))
    return request.headers["content-type"], request.read()


def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host from the system's resolver.

    Raises:
        HttpClientError: The host is unknown.
    """
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HttpClientError("unresolved", "The host is unknown") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def is_global_address(text: str) -> bool:
    """Return whether an IP address is public. IPv6 addresses that embed an IPv4 address count as that."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        embedded = _get_embedded_ipv4(address)
        if embedded is not None:
            return is_global_address(str(embedded))
        if address not in _UNICAST:
            return False
    return address.is_global and not any(address in network for network in _NON_PUBLIC_NETWORKS)


def _get_embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets are sent to in the end: mapped, NAT64 or 6to4."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_numeric_host(host: str) -> bool:
    """Return whether a host is an IPv4 address in an old notation (2130706433, 0177.1, 0x7f.0.0.1)."""
    last_label = host.removesuffix(".").rpartition(".")[2]
    if not _NUMERIC_LABEL.fullmatch(last_label):
        return False
    try:
        return str(ipaddress.ip_address(host)) != host
    except ValueError:
        return True


def _parse_url(text: str) -> httpx2.URL:
    if len(text) > MAX_URL_LENGTH:
        raise TargetNotAllowed(f"A URL can have at most {MAX_URL_LENGTH} characters")
    try:
        return httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError) as error:
        example = "https://example.com/image.jpg"
        raise TargetNotAllowed(f"The URL cannot be parsed: send an absolute one as {example}") from error


def _to_headers(response: httpcore2.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _read_body(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > max_bytes:
            raise HttpClientError("too_large", f"The response has more than {max_bytes} bytes")
    return bytes(content)


class _PinnedBackend(httpcore2.NetworkBackend):
    """Connects only to the addresses that were checked, until a deadline. Ignores the host name."""

    def __init__(self, network: httpcore2.NetworkBackend, addresses: Sequence[str], deadline: float) -> None:
        self._network, self._addresses, self._deadline = network, addresses, deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address that accepts the connection."""
        failure: Exception = httpcore2.ConnectError("no address")
        for attempts_left, address in zip(range(_MAX_ADDRESSES_TRIED, 0, -1), self._addresses, strict=False):
            # Each address gets an equal share of the remaining time.
            seconds = _remaining_seconds(self._deadline) / min(attempts_left, len(self._addresses))
            try:
                stream = self._network.connect_tcp(address, port, seconds, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure


class _DeadlineStream(httpcore2.NetworkStream):
    """A connection whose reads and writes end at the deadline, however slowly the server sends."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _remaining_seconds(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _CHUNK_BYTES):
            self._stream.write(buffer[start : start + _CHUNK_BYTES], _remaining_seconds(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        seconds = _remaining_seconds(self._deadline)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, seconds), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _remaining_seconds(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise httpcore2.ReadTimeout("the deadline has passed")
    return seconds
