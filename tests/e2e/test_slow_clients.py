"""Tests of the time and size limits for clients that send or read slowly (slowloris)."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, running_server

TIMEOUT_SECONDS = 1
"""Timeout of the server under test for slow clients."""
MAX_WAIT_SECONDS = 8
"""Time within which even a busy machine enforces the timeout."""
GET = b"GET /api/v1/utils/version HTTP/1.1\r\nHost: localhost\r\n"
SIGN_IN = (
    b"POST /api/v1/login/access-token HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a short timeout and without render workers."""
    folder: Path = tmp_path_factory.mktemp("slow")
    with running_server(folder, SLOW_CLIENT_SECONDS=str(TIMEOUT_SECONDS), RENDER_WORKERS="0") as running:
        yield running


def connect(server: RunningServer) -> socket.socket:
    port = int(server.origin.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=MAX_WAIT_SECONDS)


@pytest.fixture
def connection(server: RunningServer) -> Iterator[socket.socket]:
    """A connection to the server."""
    with connect(server) as client:
        yield client


def trickle(connection: socket.socket, first: bytes, drop: bytes) -> tuple[str, dict[str, str], bytes, float]:
    """Send `drop` every 0.1 seconds until the server closes the connection.

    Returns:
        Status line, headers, body, and the seconds until the connection was closed.
    """
    began = time.monotonic()
    received = b""
    connection.sendall(first)
    connection.settimeout(0.1)
    with contextlib.suppress(ConnectionError):  # closing while data arrives resets the connection
        while time.monotonic() - began < MAX_WAIT_SECONDS:
            with contextlib.suppress(TimeoutError):  # no response yet
                piece = connection.recv(65_536)
                received += piece
                if not piece:
                    break
            connection.sendall(drop)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    return status, dict(line.lower().split(": ", 1) for line in lines), body, time.monotonic() - began


def assert_is_408(status: str, headers: dict[str, str], body: bytes, seconds: float) -> None:
    problem = json.loads(body)
    assert status == "HTTP/1.1 408 Request Timeout"
    assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
    assert "server" not in headers
    assert (problem["code"], problem["request_id"]) == ("request_timeout", headers["x-request-id"])
    assert TIMEOUT_SECONDS * 0.9 < seconds < MAX_WAIT_SECONDS


@pytest.mark.parametrize(
    "drop",
    [
        pytest.param(b"", marks=pytest.mark.slow("the next case waits as long")),
        b"X-Drop: 1\r\n",
        pytest.param(b"x", marks=pytest.mark.slow("the case before waits as long")),
    ],
)
def test_s19_a_request_head_that_never_ends_times_out(connection: socket.socket, drop: bytes) -> None:
    assert_is_408(*trickle(connection, GET, drop))


@pytest.mark.parametrize(
    "drop", [b"", pytest.param(b"\r\n", marks=pytest.mark.slow("the case before waits as long"))]
)
def test_s19_a_silent_connection_is_closed(server: RunningServer, drop: bytes) -> None:
    # The server counts from the connection on, which on a busy machine is earlier than the first byte.
    opened_at = time.monotonic()
    with connect(server) as connection:
        status, *_ = trickle(connection, drop, drop)
    seconds = time.monotonic() - opened_at
    assert status == ""
    assert TIMEOUT_SECONDS * 0.9 < seconds < MAX_WAIT_SECONDS


@pytest.mark.parametrize(
    ("length", "drop"),
    [(b"Content-Length: 900\r\n\r\n", b"u"), (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nu\r\n")],
)
def test_s19_a_slow_request_body_times_out(connection: socket.socket, length: bytes, drop: bytes) -> None:
    assert_is_408(*trickle(connection, SIGN_IN + length, drop))


def test_s19_the_rest_of_a_rejected_request_is_not_read(connection: socket.socket) -> None:
    length = b"Content-Length: 99999999\r\n\r\n"
    status, _, body, seconds = trickle(connection, SIGN_IN + length, b"u")
    assert (status[:12], json.loads(body)["code"]) == ("HTTP/1.1 413", "too_large")
    assert TIMEOUT_SECONDS * 0.9 < seconds < MAX_WAIT_SECONDS


def test_s19_the_connection_of_a_client_that_does_not_read_is_closed(connection: socket.socket) -> None:
    request = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection.sendall(request * 60)
    # The first request builds the document, which takes seconds on a busy machine.
    select.select([connection], [], [], 60)
    time.sleep(3 * TIMEOUT_SECONDS)
    connection.settimeout(MAX_WAIT_SECONDS)
    read = 0
    with contextlib.suppress(ConnectionError):  # the close may arrive as a reset
        while piece := connection.recv(1_048_576):
            read += len(piece)
    # Data in buffers still arrives. If everything arrived, the server would not have closed the connection.
    whole = len((Path(__file__).parents[2] / "openapi" / "openapi.json").read_bytes())
    assert 0 < read < 60 * whole


@pytest.mark.parametrize("bytes_more", [0, 1])
def test_s19_a_large_request_head_is_rejected_even_if_it_arrives_at_once(
    connection: socket.socket, bytes_more: int
) -> None:
    padding = b"A: " + b"a" * (60_000 + 10_000 * bytes_more) + b"\r\n"
    connection.sendall(GET + padding + b"Connection: close\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 400 " if bytes_more else b"HTTP/1.1 200 ")


@pytest.mark.parametrize("count", [90, 101])
def test_s19_a_request_has_at_most_a_hundred_headers(connection: socket.socket, count: int) -> None:
    connection.sendall(GET + b"A: b\r\n" * count + b"Connection: close\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 200 " if count == 90 else b"HTTP/1.1 400 ")


@pytest.mark.slow("it waits three seconds")
def test_a_client_waiting_for_a_response_does_not_time_out(server: RunningServer) -> None:
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        body = {"product_id": "01990000-5eed-7000-8000-000500000001", "width": 64, "height": 64}
        scope = {"organization_id": "01990000-5eed-7000-8000-000200000001"}
        headers = {"Prefer": f"wait={TIMEOUT_SECONDS + 2}"}
        answer = api.client.post("/generations/", params=scope, json=body, headers=headers, timeout=30)
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == f"wait={TIMEOUT_SECONDS + 2}"


@pytest.mark.slow("it waits two seconds")
def test_a_connection_stays_open_for_requests_within_the_timeout(server: RunningServer) -> None:
    client = http.client.HTTPConnection(
        "127.0.0.1", int(server.origin.rpartition(":")[2]), timeout=MAX_WAIT_SECONDS
    )
    client.connect()
    own_end = client.sock.getsockname()
    for _ in range(4):
        client.request("GET", "/api/v1/utils/version")
        client.getresponse().read()
        time.sleep(TIMEOUT_SECONDS / 2)
        assert client.sock.getsockname() == own_end
    client.close()
