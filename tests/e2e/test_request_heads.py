"""Tests of header fields that a proxy and the server could understand differently: underscores and Host."""

from __future__ import annotations

import json
import socket

import pytest

from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.server import RunningServer

REQUEST_LINE = b"GET /api/v1/utils/version HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
SIGN_IN = b"POST /api/v1/login/access-token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


def exchange(server: RunningServer, sent: bytes) -> tuple[int, bytes]:
    """Send bytes to the server and return the status and the body of the response."""
    port = int(server.origin.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    "head",
    [
        REQUEST_LINE,
        REQUEST_LINE + HOST + HOST,
        REQUEST_LINE + HOST + b"hOsT: other.example\r\n",
        REQUEST_LINE + b"X_Host: localhost\r\nHo_st: localhost\r\n",
        REQUEST_LINE.replace(b"1.1", b"1.0") + HOST + HOST,
    ],
)
def test_s45_a_request_without_exactly_one_host_is_rejected(demo_server: RunningServer, head: bytes) -> None:
    status, body = exchange(demo_server, head + b"Connection: close\r\n\r\n")
    problem = json.loads(body)
    assert (status, problem["code"]) == (400, "malformed_request")
    assert problem["detail"] == "An HTTP/1.1 request must have exactly one Host header field"


@pytest.mark.parametrize(
    "head", [REQUEST_LINE + HOST, REQUEST_LINE + b"Host:\r\n", REQUEST_LINE.replace(b"1.1", b"1.0")]
)
def test_s45_one_host_is_enough_and_http_1_0_needs_none(demo_server: RunningServer, head: bytes) -> None:
    status, _ = exchange(demo_server, head + b"Connection: close\r\n\r\n")
    assert status == 200


def test_s45_a_trailer_is_no_header_field(demo_server: RunningServer) -> None:
    with Api(demo_server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        token = api.client.headers["authorization"].encode()
    head = (
        b"PATCH /api/v1/users/me HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\n" + HOST
    )
    head += b"Authorization: " + token + b"\r\n"
    body = b'{"full_name":"Demo"}'
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)
    never_matches = b'If-Match: "never"\r\n'
    plain = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    assert exchange(demo_server, head + never_matches + plain)[0] == 412
    assert exchange(demo_server, head + chunked + never_matches + b"\r\n")[0] == 200


def test_s45_a_second_request_on_the_connection_needs_its_own_host(demo_server: RunningServer) -> None:
    port = int(demo_server.origin.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        # HEAD: the response is one head without a body.
        connection.sendall(REQUEST_LINE.replace(b"GET", b"HEAD") + HOST + b"\r\n")
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            received += connection.recv(65_536)
        assert received.startswith(b"HTTP/1.1 200 ")
        connection.sendall(REQUEST_LINE + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        # The request has no body, so there is no media type to complain about.
        (b"Content_Length: 4\r\nContent-Type: text/plain\r\n", 422, "invalid_request"),
        (b"Transfer_Encoding: chunked\r\nContent-Type: text/plain\r\n", 422, "invalid_request"),
        # The media type is missing.
        (b"Content-Length: 4\r\nContent_Type: application/x-www-form-urlencoded\r\n", 415, None),
    ],
)
def test_s45_framing_and_media_type_with_an_underscore_are_dropped(
    demo_server: RunningServer, fields: bytes, status: int, code: str | None
) -> None:
    sent = SIGN_IN + fields + b"\r\n" + (b"a=b&" if b"Content-Length" in fields else b"")
    answer, body = exchange(demo_server, sent)
    assert (answer, json.loads(body)["code"]) == (status, code or "unsupported_media_type")


@pytest.mark.parametrize("name", ["if-none-match", "if_none_match", "If_None-Match"])
def test_s45_only_the_name_with_hyphens_is_a_precondition(demo_server: RunningServer, name: str) -> None:
    head = b"GET /api/v1/openapi.json HTTP/1.1\r\n" + HOST + b"Connection: close\r\n"
    status, _ = exchange(demo_server, head + f"{name}: *\r\n\r\n".encode())
    assert status == (304 if "_" not in name else 200)


def test_s45_a_field_with_an_underscore_counts_for_the_limit_of_headers(demo_server: RunningServer) -> None:
    status, body = exchange(demo_server, REQUEST_LINE + HOST + b"A_B: c\r\n" * 100 + b"\r\n")
    assert (status, json.loads(body)["detail"]) == (400, "The request head is too large")
