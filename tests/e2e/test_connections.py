"""Tests of the limits of open connections, with real sockets, and of a server that runs out of files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from handlers.pipeline.admission.connections import ANSWERED_BEYOND_LIMIT
from handlers.pipeline.wsgi_bridge import PROBE_STALE_SECONDS
from handlers.server.http_protocol import IDLE_SECONDS
from tests.e2e.generation_steps import make_phone_photo
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, ServerDidNotStart, running_server

pytestmark = pytest.mark.slow("it starts servers and opens thousands of connections")

TOTAL, PER_ADDRESS = 60, 20
READINESS = "/api/v1/utils/readiness"
BRANDS, SERVED = "/api/v1/brands/", 401
"""An operation, and its status without a credential."""


class Response(NamedTuple):
    """The response on one connection; status 0 means that the server closed it without one."""

    status: int
    headers: dict[str, str]
    body: bytes


def connect(server: RunningServer, address: str = "127.0.0.1") -> socket.socket:
    """Open a connection from an address of the loopback network."""
    target = ("127.0.0.1", int(server.origin.rpartition(":")[2]))
    return socket.create_connection(target, timeout=20, source_address=(address, 0))


def get(connection: socket.socket, path: str = BRANDS) -> Response:
    """Send a request and read its response."""
    received = b""
    with contextlib.suppress(ConnectionError):  # a connection that the server has closed is reset
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while b"\r\n\r\n" not in received and (piece := connection.recv(65_536)):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return Response(0, {}, b"")
    status, *lines = head.decode("ascii").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65_536)
    return Response(int(status.split()[1]), headers, body)


@contextlib.contextmanager
def open_connections(server: RunningServer, address: str, count: int) -> Iterator[list[socket.socket]]:
    """Open idle connections from one address within the block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(server, address)) for _ in range(count)]


def get_once(server: RunningServer, path: str = BRANDS, address: str = "127.0.0.1") -> Response:
    """Send a request on a new connection."""
    with connect(server, address) as connection:
        return get(connection, path)


def assert_is_unavailable(response: Response, detail: str) -> None:
    assert (response.status, response.headers["retry-after"]) == (503, "5")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["connection"] == "close"
    problem = json.loads(response.body)
    assert (problem["code"], problem["detail"]) == ("unavailable", detail)
    assert problem["request_id"] == response.headers["x-request-id"]


TOO_MANY_OF_ADDRESS = "Too many connections from your address; use one for several requests, or wait"
TOO_MANY = "The server has too many connections; try again in a moment"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with few connections."""
    limits = {"MAX_CONNECTIONS": str(TOTAL), "MAX_ADDRESS_CONNECTIONS": str(PER_ADDRESS)}
    with running_server(tmp_path_factory.mktemp("few"), **limits, RENDER_WORKERS="0") as running:
        yield running


def test_s19_an_address_has_a_limit_of_connections(server: RunningServer) -> None:
    with open_connections(server, "127.0.0.2", PER_ADDRESS) as connections:
        assert_is_unavailable(get_once(server, address="127.0.0.2"), TOO_MANY_OF_ADDRESS)
        assert get_once(server, READINESS, "127.0.0.2").status == 200
        assert get_once(server, address="127.0.0.3").status == SERVED
        assert {get(connection).status for connection in connections} == {SERVED}
        connections.pop().close()
        assert_is_served_again(server, "127.0.0.2")
    assert "ms unavailable connections\n" in server.log.read_text()


def assert_is_served_again(server: RunningServer, address: str) -> None:
    """Assert that the server notices a closed connection."""
    deadline = time.monotonic() + 5
    while get_once(server, address=address).status != SERVED:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_s19_the_server_has_a_limit_of_connections_and_still_answers_probes(server: RunningServer) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(TOTAL // PER_ADDRESS):
            stack.enter_context(open_connections(server, f"127.0.1.{number + 1}", PER_ADDRESS))
        response = get_once(server, address="127.0.0.9")
        assert_is_unavailable(response, TOO_MANY)
        assert get_once(server, READINESS, "127.0.0.9").status == 200
        assert get_once(server, "/", "127.0.0.9").status == 503
        for number in range(ANSWERED_BEYOND_LIMIT // 4):
            stack.enter_context(open_connections(server, f"127.0.2.{number + 1}", 4))
        # Beyond these, connections are closed before they send a request.
        assert get_once(server, READINESS, "127.0.0.9").status == 0
    assert_is_served_again(server, "127.0.0.9")


def test_s19_a_connection_without_a_request_is_closed_after_seconds(server: RunningServer) -> None:
    began = time.monotonic()
    with connect(server) as silent, connect(server) as idle:
        assert get(idle).status == SERVED
        assert (silent.recv(1), idle.recv(1)) == (b"", b"")
    assert IDLE_SECONDS * 0.9 < time.monotonic() - began < 2 * IDLE_SECONDS


@contextlib.contextmanager
def server_with_files(folder: Path, soft: int, hard: int) -> Iterator[RunningServer]:
    """Run a server with default limits of connections and a limit of open files within the block."""
    python = folder / "python-with-few-files"
    python.write_text(f'#!/bin/sh\nulimit -Sn {soft} && ulimit -Hn {hard} && exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with running_server(folder, python=str(python), RENDER_WORKERS="0") as server:
        yield server


def test_s19_a_thousand_connections_are_served_with_a_low_soft_limit_of_files(tmp_path: Path) -> None:
    with server_with_files(tmp_path, 256, 20_000) as server, contextlib.ExitStack() as stack:
        addresses = [f"127.0.0.{number}" for number in range(2, 7)]
        pools = [stack.enter_context(open_connections(server, address, 200)) for address in addresses]
        assert {get(connection).status for pool in pools for connection in pool} == {SERVED}
        assert_is_unavailable(get_once(server), TOO_MANY)
        stack.close()
        assert_is_served_again(server, "127.0.0.1")


def test_s19_a_server_with_few_files_has_fewer_connections(tmp_path: Path) -> None:
    with server_with_files(tmp_path, 400, 400) as server, contextlib.ExitStack() as stack:
        for number in range(2, 7):
            stack.enter_context(open_connections(server, f"127.0.0.{number}", 100))
        statuses = [get_once(server, READINESS).status for _ in range(3)]
        assert statuses == [0, 0, 0]
        stack.close()
        assert_is_served_again(server, "127.0.0.1")
        log = server.log.read_text()
    assert re.search(r"MAX_CONNECTIONS is lowered to \d+: the limit of open files is 400", log)
    assert "Too many open files" not in log


def test_s19_a_server_with_too_few_files_does_not_start(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerDidNotStart, match="Not started: the limit of open files is 100"),
        server_with_files(tmp_path, 100, 100),
    ):
        raise AssertionError("the server started")


@contextlib.contextmanager
def limited_files(server: RunningServer, limit: int) -> Iterator[None]:
    """Change the limit of open files of a running server within the block."""
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)


def test_s19_the_server_accepts_connections_again_when_it_has_files_again(server: RunningServer) -> None:
    highest = max(int(name) for name in os.listdir(f"/proc/{server.process.pid}/fd"))
    with limited_files(server, highest + 1), contextlib.ExitStack() as stack:
        # Use up the numbers below the limit, until the server cannot accept a connection.
        while get_once(server).status:
            stack.enter_context(connect(server))
    assert_is_served_again(server, "127.0.0.1")


def test_s19_without_a_free_file_every_request_gets_a_declared_response(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    with running_server(folder, RENDER_WORKERS="0") as server, Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        photo = make_phone_photo()
        files = {"file": ("a.jpg", photo + bytes(2_000_000))}
        product = api.post("/products/", json={"name": "Dress"})
        path = f"/products/{product['id']}/images"
        image = api.post(path, files=files, data={"type": "primary"})
        url = image["url"]
        as_avif = {"headers": {"accept": "image/avif"}}
        requests = {
            "upload": lambda: api.client.post(path, files=files, data={"type": "primary"}),
            "file": lambda: api.client.get(url),
            "variant": lambda: api.client.get(url, **as_avif),
            "brand": lambda: api.client.post("/brands/", json={"name": "Brand"}),
            "page": lambda: api.client.get(f"{server.origin}/"),
            "contract": lambda: api.client.get("/openapi.json"),
            "readiness": lambda: api.client.get("/utils/readiness"),
        }
        # Readiness must not return an earlier result, here and below.
        time.sleep(PROBE_STALE_SECONDS)
        # No file that is opened gets a number below 3.
        with limited_files(server, 3):
            responses = {name: request() for name, request in requests.items()}
        for name, response in responses.items():
            assert response.status_code in (200, 201, 503), (name, response.text)
            if response.status_code == 503:
                assert response.json()["code"] == "unavailable"
                assert response.headers["retry-after"].isdigit()
        for name in ("upload", "file", "variant", "readiness"):
            assert responses[name].status_code == 503, name
        time.sleep(PROBE_STALE_SECONDS)
        assert get_once(server).status == SERVED
        assert {name: request().status_code for name, request in requests.items()} == {
            name: 201 if name in ("upload", "brand") else 200 for name in requests
        }
        log = server.log.read_text()
        assert "Traceback" not in log


IDLE_CONNECTIONS = 5_000
"""Of each of two servers. A server needs two files for each, and few systems allow more than 20,000 files."""
MAX_SECONDS = 1
"""`make abuse` allows its probes the same."""


def test_s19_ten_thousand_idle_connections_slow_no_one_down(tmp_path: Path) -> None:
    limit = str(IDLE_CONNECTIONS + 100)
    limits = {"MAX_CONNECTIONS": limit, "MAX_ADDRESS_CONNECTIONS": limit, "RENDER_WORKERS": "0"}
    with (
        running_server(tmp_path, **limits) as first,
        running_server(tmp_path, **limits) as second,
        connect(first) as of_first,
        connect(second) as of_second,
        contextlib.ExitStack() as idle,
    ):
        servers, others = (first, second), (of_first, of_second)
        before = [resident_bytes(server) for server in servers]
        seconds = [measure_request(other) for other in others]
        for _ in range(IDLE_CONNECTIONS // 50):
            for server, other in zip(servers, others, strict=True):
                idle.enter_context(open_connections(server, "127.0.0.2", 50))
                seconds.append(measure_request(other))
        growth = [resident_bytes(server) - bytes_ for server, bytes_ in zip(servers, before, strict=True)]
        # Without a request, the servers close the connections now.
        until = time.monotonic() + IDLE_SECONDS + 1
        while time.monotonic() < until:
            seconds.extend(measure_request(other) for other in others)
        assert max(seconds) < MAX_SECONDS
        assert max(growth) < IDLE_CONNECTIONS * 20_000
        log = first.log.read_text()
    assert "MAX_CONNECTIONS is lowered" not in log
    assert "Traceback" not in log


def measure_request(connection: socket.socket) -> float:
    """Return the seconds until the response to a request has arrived."""
    began = time.monotonic()
    assert get(connection).status == SERVED
    return time.monotonic() - began


def resident_bytes(server: RunningServer) -> int:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
