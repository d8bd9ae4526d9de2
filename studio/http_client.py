"""The one guarded HTTP client: whatever this server asks of other servers goes through here.

An address is allowed by where it leads, not by how it is spelled: https, port 443, and every address that the
name resolves to is public. The connection goes to an address that was checked, so a name that resolves
differently a moment later changes nothing; each redirect is checked anew. Time (that of the resolver too) and
size of a whole exchange are bounded. No cookies, no proxies, no decompression.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Literal

import httpcore2
import httpx2

from db.errors import TargetNotAllowed
from studio.settings import Settings
from studio.telemetry.metrics import count_outbound_call

PORT = 443
MAX_URL_LENGTH = 2_048
DNS_TIMEOUT_SECONDS = 5.0
NOT_PUBLIC = "The host is unknown or not on the public internet"
"""One text for both: which names there are within a network is nothing to tell those outside."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_ADDRESSES_TRIED = 3
_CHUNK_BYTES = 16_384
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?|[0-9a-f:.]+")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")

# What `is_global` calls global, or does in some version of Python, and where nobody's public server lives.
_NON_PUBLIC_NETWORKS = [
    ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/3", "3fff::/20")
]
_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")

Resolve = Callable[[str, int], Sequence[str]]
Reason = Literal["unresolved", "timeout", "connection", "protocol", "too_large"]


class HttpClientError(Exception):
    """The exchange did not come to an end: `reason` says where, for programs; a later try may succeed."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class HttpResponse:
    """What the other server answered. Header names are lower case; repeated headers are joined by commas."""

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
    """A client that goes to allowed targets only. Share it among threads; it holds no connection.

    `allowed_hosts` ("host:port") are reached over http or https, wherever they are. `resolve` and
    `network` stand in for the system's resolver and sockets.
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
        self._ssl_context = ssl_context or _default_ssl_context()

    @classmethod
    def from_settings(cls, settings: Settings) -> SafeHttpClient:
        """The client of a process with these settings."""
        return cls(settings.outbound_allowed_hosts)

    def require_allowed(self, url: str) -> None:
        """TargetNotAllowed unless this server would connect to the address now; nothing is sent there.

        It may take LOOKUP_SECONDS.
        """
        try:
            self._check(url, time.monotonic() + DNS_TIMEOUT_SECONDS)
        except HttpClientError as failure:
            raise TargetNotAllowed(NOT_PUBLIC) from failure

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        timeout_seconds: float,
        max_bytes: int,
        redirects: int = 0,
    ) -> HttpResponse:
        """The answer, whatever its status; at most `redirects` are followed, the next one is the answer.

        TargetNotAllowed for an address (of a redirect too) where this server does not go; OutboundFailed when
        no whole answer of at most `max_bytes` came within `timeout_seconds`, redirects included.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            reply = self._follow(method, url, headers, content, deadline, max_bytes, redirects)
        except HttpClientError as failure:
            count_outbound_call(failure.reason)
            raise
        count_outbound_call(f"{reply.status // 100}xx")
        return reply

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        content: bytes,
        deadline: float,
        max_bytes: int,
        redirects: int,
    ) -> HttpResponse:
        target, told = self._check(url, deadline), dict(headers or {})
        while True:
            reply = self._exchange(method, target, told, content, deadline, max_bytes)
            location = reply.headers.get("location")
            if redirects == 0 or reply.status not in REDIRECTS or not location:
                return reply
            redirects -= 1
            following = self._check_redirect(target, location, deadline)
            if reply.status == 303 or (reply.status in (301, 302) and method == "POST"):
                method, content = "GET", b""
            if (following.url.scheme, following.host, following.port) != (
                target.url.scheme,
                target.host,
                target.port,
            ):
                # What was meant for one server, credentials above all, is no business of another.
                told = {}
            target = following

    def _check_redirect(self, target: _Target, location: str, deadline: float) -> _Target:
        try:
            return self._check(str(target.url.join(location)), deadline)
        except (TargetNotAllowed, httpx2.InvalidURL, ValueError) as error:
            # Where it leads is the other server's answer, of which nothing is told.
            raise TargetNotAllowed("The address leads to one that is not allowed") from error

    def _check(self, text: str, deadline: float) -> _Target:
        url = _parse_url(text)
        host = url.raw_host.decode("ascii")
        port = {"http": 80, "https": PORT}.get(url.scheme, 0) if url.port is None else url.port
        if url.scheme not in ("http", "https") or url.userinfo or not _HOST.fullmatch(host):
            raise TargetNotAllowed("Only https addresses without credentials are allowed")
        if f"{host}:{port}" in self._allowed_hosts:
            return _Target(url, host, port, self._resolve_host(host, port, deadline))
        if url.scheme != "https":
            raise TargetNotAllowed("Only https addresses are allowed")
        if port != PORT:
            raise TargetNotAllowed(f"Only port {PORT} is allowed")
        if _is_numeric_host(host):
            raise TargetNotAllowed("The host is an address in a spelling that is not allowed")
        addresses = self._resolve_host(host, port, deadline)
        if not addresses or not all(is_global_address(address) for address in addresses):
            raise TargetNotAllowed(NOT_PUBLIC)
        return _Target(url, host, port, addresses)

    def _resolve_host(self, host: str, port: int, deadline: float) -> tuple[str, ...]:
        """The addresses of a host. The system's resolver knows no deadline, so it is left behind at ours."""
        answer: Future[Sequence[str]] = Future()

        def ask() -> None:
            try:
                answer.set_result(self._resolve(host, port))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the answer is awaited
                answer.set_exception(error)

        threading.Thread(target=ask, name="resolver", daemon=True).start()
        try:
            return tuple(answer.result(max(0.0, min(DNS_TIMEOUT_SECONDS, deadline - time.monotonic()))))
        except TimeoutError as error:
            raise HttpClientError("timeout", "The host was not found in time") from error

    def _exchange(
        self,
        method: str,
        target: _Target,
        headers: Mapping[str, str],
        content: bytes,
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
        told = {"Host": target.url.netloc.decode("ascii"), "Accept-Encoding": "identity", **headers}
        try:
            with (
                httpcore2.ConnectionPool(ssl_context=self._ssl_context, network_backend=network) as pool,
                pool.stream(method, url, headers=list(told.items()), content=content or None) as response,
            ):
                return HttpResponse(
                    response.status, _to_headers(response), _read_body(response.iter_stream(), max_bytes)
                )
        except httpcore2.TimeoutException as error:
            raise HttpClientError("timeout", "The server did not answer in time") from error
        except httpcore2.NetworkError as error:
            raise HttpClientError("connection", "There was no connection to the server") from error
        except httpcore2.ProtocolError as error:
            raise HttpClientError("protocol", "The server does not speak HTTP as it should") from error


@lru_cache(maxsize=1)
def _default_ssl_context() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of a host by the system's resolver; OutboundFailed when it knows none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HttpClientError("unresolved", "The host is unknown") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_global_address(text: str) -> bool:
    """Whether an address belongs to the public internet, judged by the IPv4 address that it stands for."""
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
    """The IPv4 address that a packet to this one ends at: mapped, by NAT64 or by 6to4."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_numeric_host(host: str) -> bool:
    """Whether a host is an IPv4 address in one of the old spellings (2130706433, 0177.1, 0x7f.0.0.1)."""
    last_label = host.removesuffix(".").rpartition(".")[2]
    if not _NUMERIC_LABEL.fullmatch(last_label):
        return False
    try:
        return str(ipaddress.ip_address(host)) != host
    except ValueError:
        return True


def _parse_url(text: str) -> httpx2.URL:
    if len(text) > MAX_URL_LENGTH:
        raise TargetNotAllowed(f"An address may have at most {MAX_URL_LENGTH} characters")
    try:
        return httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError) as error:
        raise TargetNotAllowed("The address cannot be read") from error


def _to_headers(response: httpcore2.Response) -> dict[str, str]:
    told: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        told[name] = f"{told[name]}, {value}" if name in told else value
    return told


def _read_body(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > max_bytes:
            raise HttpClientError("too_large", f"The answer has more than {max_bytes} bytes")
    return bytes(content)


class _PinnedBackend(httpcore2.NetworkBackend):
    """Connects to the addresses that were checked, whatever the host's name says by now, until a deadline."""

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
        """A connection to the first address that takes one."""
        failure: Exception = httpcore2.ConnectError("no address")
        for tries_left, address in zip(range(_MAX_ADDRESSES_TRIED, 0, -1), self._addresses, strict=False):
            share = _remaining_seconds(self._deadline) / min(tries_left, len(self._addresses))
            try:
                stream = self._network.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure


class _DeadlineStream(httpcore2.NetworkStream):
    """A connection on which nothing lasts beyond the deadline, however slowly the other side drips."""

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
        left = _remaining_seconds(self._deadline)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _remaining_seconds(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout("the time of the exchange is over")
    return left
