"""Test that the HTTP client connects to public servers and explicitly allowed hosts, and to no others."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from db.errors import TargetNotAllowed
from studio.infrastructure.http_client import HttpClientError, HttpResponse, SafeHttpClient, is_global_address
from studio.infrastructure.settings import InvalidSettings, Settings
from tests.support.servers.image_hosts import (
    CERTIFICATE,
    HOST,
    PUBLIC_ADDRESS,
    RedirectedNetwork,
    build_public_client,
    run_tls_recorder,
)
from tools.servers.http_recorder import (
    HttpRecorder,
    RecordedRequest,
    StubResponse,
    run_http_recorder,
)


def build_client(*servers: HttpRecorder, **options: Any) -> SafeHttpClient:
    return SafeHttpClient([server.host for server in servers], **options)


def send_request(outbound: SafeHttpClient, url: str, method: str = "GET", **options: Any) -> HttpResponse:
    return outbound.send(method, url, **{"timeout_seconds": 5, "max_bytes": 1_000, **options})


@pytest.fixture
def tls_server() -> Iterator[HttpRecorder]:
    with run_tls_recorder(lambda request: StubResponse(body=b"pong")) as server:
        yield server


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0.0.0.0",
        "0",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "user@127.0.0.1",
        "example.com\\@127.0.0.1",
    ],
)
def test_s06_no_spelling_of_the_loopback_address_is_reached(scheme: str, host: str) -> None:
    with run_http_recorder() as canary:
        url = f"{scheme}://{host}:{canary.port}/"
        with pytest.raises(TargetNotAllowed):
            SafeHttpClient().require_allowed(url)
        with pytest.raises(TargetNotAllowed):
            send_request(SafeHttpClient(), url)
        with pytest.raises(TargetNotAllowed):
            SafeHttpClient().require_allowed(f"{scheme}://{host}/")
        assert canary.requests == []


@pytest.mark.parametrize(
    "url",
    [
        f"http://{PUBLIC_ADDRESS}/",
        f"https://{PUBLIC_ADDRESS}:22/",
        f"https://{PUBLIC_ADDRESS}:80/",
        f"https://{PUBLIC_ADDRESS}:0/",
        f"https://{PUBLIC_ADDRESS}:70000/",
        f"https://user@{PUBLIC_ADDRESS}/",
        f"https://user:secret@{PUBLIC_ADDRESS}/",
        f"ftp://{PUBLIC_ADDRESS}/",
        f"gopher://{PUBLIC_ADDRESS}/",
        "file:///etc/passwd",
        "https:///etc/passwd",
        "https://",
        "https://a b/",
        "//example.com/",
        "example.com",
        "",
        "\x00",
        "https://[::1/",
        f"https://{PUBLIC_ADDRESS}/{'x' * 2_048}",
    ],
)
def test_s06_only_https_on_its_own_port_without_credentials_is_allowed(url: str) -> None:
    with pytest.raises(TargetNotAllowed):
        SafeHttpClient(resolve=lambda host, port: [PUBLIC_ADDRESS]).require_allowed(url)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255",
        "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
        "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1",
        "100::1", "2001::1", "2001:db8::1", "2002:a00:1::1", "2002:c0a8:101::", "3fff::1", "4000::1",
        "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "nonsense",
    ],
)  # fmt: skip
def test_s06_an_address_that_is_not_public_is_rejected_in_every_notation(
    address: str,
) -> None:
    assert not is_global_address(address)
    for addresses in ([address], [PUBLIC_ADDRESS, address]):
        with pytest.raises(TargetNotAllowed):
            SafeHttpClient(resolve=lambda host, port, found=addresses: found).require_allowed(
                "https://example.com/"
            )


@pytest.mark.parametrize(
    "address",
    [
        PUBLIC_ADDRESS,
        "172.32.0.1",
        "2606:2800:21f::1",
        f"::ffff:{PUBLIC_ADDRESS}",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_global_address(address)
    SafeHttpClient(resolve=lambda host, port: [address]).require_allowed("https://example.com/hook?a=b")


def test_an_unknown_host_is_not_allowed_and_fails_if_it_becomes_unknown_later() -> None:
    url = "https://unknown.invalid/"
    with pytest.raises(TargetNotAllowed):
        SafeHttpClient().require_allowed(url)
    with pytest.raises(HttpClientError) as failure:
        send_request(SafeHttpClient(), url)
    assert failure.value.reason == "unresolved"


def test_s08_the_connection_goes_to_the_checked_address_even_if_the_name_resolves_differently_later(
    tls_server: HttpRecorder,
) -> None:
    """DNS rebinding: the name resolves to a public address for the check and to loopback afterwards."""
    outbound, network = build_public_client(tls_server, [PUBLIC_ADDRESS], ["127.0.0.1"])
    assert send_request(outbound, f"https://{HOST}/hook").content == b"pong"
    assert network.targets == [(PUBLIC_ADDRESS, 443)]
    assert tls_server.requests[0].headers["host"] == HOST
    with pytest.raises(TargetNotAllowed):
        send_request(outbound, f"https://{HOST}/hook")
    assert len(network.targets) == 1


def test_resolving_a_name_has_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.infrastructure.http_client.DNS_TIMEOUT_SECONDS", 0.1)
    test_over = threading.Event()

    def resolve_slowly(host: str, port: int) -> list[str]:
        test_over.wait(10)
        return [PUBLIC_ADDRESS]

    began = time.monotonic()
    with pytest.raises(TargetNotAllowed):
        SafeHttpClient(resolve=resolve_slowly).require_allowed(f"https://{HOST}/")
    with pytest.raises(HttpClientError) as failure:
        send_request(SafeHttpClient(resolve=resolve_slowly), f"https://{HOST}/")
    assert failure.value.reason == "timeout"
    assert time.monotonic() - began < 2
    test_over.set()


def test_errors_do_not_reveal_internal_names() -> None:
    with pytest.raises(TargetNotAllowed) as internal:
        SafeHttpClient(resolve=lambda host, port: ["10.0.0.5"]).require_allowed("https://database.internal/")
    with pytest.raises(TargetNotAllowed) as unknown:
        SafeHttpClient().require_allowed("https://unknown.invalid/")
    assert internal.value.detail == unknown.value.detail


def test_a_certificate_of_another_name_or_authority_is_rejected(tls_server: HttpRecorder) -> None:
    trusted = ssl.create_default_context(cafile=CERTIFICATE)
    for name, context in (("other.example.test", trusted), (HOST, None)):
        outbound = SafeHttpClient(
            resolve=lambda host, port: [PUBLIC_ADDRESS],
            network=RedirectedNetwork(tls_server.port),
            ssl_context=context,
        )
        with pytest.raises(HttpClientError) as failure:
            send_request(outbound, f"https://{name}/")
        assert failure.value.reason == "connection"
    assert tls_server.requests == []


def test_the_next_address_is_tried_when_a_connection_fails() -> None:
    with run_http_recorder() as server:
        outbound = build_client(server, resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"])
        assert send_request(outbound, server.url).status == 200


def test_a_request_arrives_unchanged_without_proxies_cookies_or_extra_headers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    cookie = {"Set-Cookie": "a=b", "X-Twice": "1"}
    with run_http_recorder(lambda request: StubResponse(201, b"made", cookie)) as server:
        outbound = build_client(server)
        for _ in range(2):
            response = send_request(
                outbound, f"{server.url}/a?b=c", "POST", headers={"X-Own": "1"}, content=b"body"
            )
    assert (response.status, response.content, response.headers["x-twice"]) == (201, b"made", "1")
    headers = {"host": server.host, "accept-encoding": "identity", "x-own": "1", "content-length": "4"}
    assert server.requests[1] == RecordedRequest("POST", "/a?b=c", headers, b"body")


def test_s07_every_hop_of_a_redirect_is_checked_again() -> None:
    with (
        run_http_recorder() as canary,
        run_http_recorder(
            lambda request: StubResponse(302, headers={"Location": f"{canary.url}/secret"})
        ) as server,
    ):
        assert send_request(build_client(server), server.url).status == 302
        with pytest.raises(TargetNotAllowed):
            send_request(build_client(server), server.url, redirects=5)
        assert canary.requests == []
        secret = {"Authorization": "Bearer secret"}
        response = send_request(
            build_client(server, canary), server.url, "POST", redirects=5, content=b"x", headers=secret
        )
        assert response.status == 200
        assert (canary.requests[0].method, canary.requests[0].body) == ("GET", b"")
        assert "authorization" not in canary.requests[0].headers


def test_the_number_of_redirects_is_limited() -> None:
    with run_http_recorder(lambda request: StubResponse(307, headers={"Location": "/again"})) as server:
        response = send_request(build_client(server), server.url, "POST", content=b"x", redirects=3)
    assert response.status == 307
    assert [(request.method, request.body) for request in server.requests] == [("POST", b"x")] * 4


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "100000000"}])
def test_a_response_that_is_too_large_is_not_read_to_its_end(headers: dict[str, str]) -> None:
    with (
        run_http_recorder(lambda request: StubResponse(body=b"x" * 100_000, headers=headers)) as server,
        pytest.raises(HttpClientError) as failure,
    ):
        send_request(build_client(server), server.url)
    assert failure.value.reason == "too_large"


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_the_timeout_ends_a_response_that_arrives_slowly(start: bytes) -> None:
    test_over = threading.Event()

    def drip(connection: Any) -> None:
        connection.sendall(start)
        while not test_over.wait(0.05):
            connection.sendall(b"x")

    with run_http_recorder(lambda request: StubResponse(write=drip)) as server:
        began = time.monotonic()
        with pytest.raises(HttpClientError) as failure:
            send_request(build_client(server), server.url, timeout_seconds=0.4)
        test_over.set()
    assert failure.value.reason == "timeout"
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "protocol"),
        (b"220 smtp\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "protocol"),
    ],
)
def test_an_incomplete_or_invalid_response_is_a_protocol_error(sent: bytes, reason: str) -> None:
    with (
        run_http_recorder(
            lambda request: StubResponse(write=lambda connection: connection.sendall(sent))
        ) as server,
        pytest.raises(HttpClientError) as failure,
    ):
        send_request(build_client(server), server.url)
    assert failure.value.reason == "protocol"


def test_a_closed_port_is_a_connection_error() -> None:
    with run_http_recorder() as server:
        pass
    with pytest.raises(HttpClientError) as failure:
        send_request(build_client(server), server.url)
    assert failure.value.reason == "connection"


def test_hosts_are_allowed_by_name_and_port_in_the_settings() -> None:
    settings = Settings.from_environment({"OUTBOUND_ALLOWED_HOSTS": " 127.0.0.1:9000 ,Compute.internal:80,"})
    assert settings.outbound_allowed_hosts == ("127.0.0.1:9000", "compute.internal:80")
    outbound = SafeHttpClient.from_settings(settings)
    outbound.require_allowed("http://127.0.0.1:9000/")
    with pytest.raises(TargetNotAllowed):
        outbound.require_allowed("http://127.0.0.1:9001/")
    for wrong in ("127.0.0.1", "http://a:1", "a:b"):
        with pytest.raises(InvalidSettings, match="OUTBOUND_ALLOWED_HOSTS"):
            Settings.from_environment({"OUTBOUND_ALLOWED_HOSTS": wrong})
