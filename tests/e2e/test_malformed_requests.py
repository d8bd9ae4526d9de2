"""Tests of requests that no HTTP library sends: bytes, heads and bodies on a socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest

from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, free_port, running_server

CONNECTIONS = 30
METRICS_PORT = free_port()
MEGABYTE = 1_000_000
FILE_BYTES = 50 * MEGABYTE
MAX_HELD_BYTES = 60 * MEGABYTE
"""The smallest limit that the settings allow; the default is 250 MB."""
REQUEST_LINE = b"GET /api/v1/utils/version HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
SIGN_IN = b"POST /api/v1/login/access-token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server that holds few bytes of one address."""
    folder = tmp_path_factory.mktemp("malformed")
    with running_server(
        folder,
        MAX_ADDRESS_BODY_BYTES=str(MAX_HELD_BYTES),
        METRICS_PORT=str(METRICS_PORT),
        RENDER_WORKERS="0",
        WEBHOOK_SENDERS="0",
    ) as running:
        yield running


def connect(server: RunningServer) -> socket.socket:
    """Open a connection to the server."""
    return socket.create_connection(("127.0.0.1", int(server.origin.rpartition(":")[2])), timeout=30)


class Response(NamedTuple):
    """The head of a response and its JSON."""

    status_line: str
    headers: dict[str, str]
    json: Any

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.status_line.split()[1])


def exchange(server: RunningServer, sent: bytes) -> Response:
    """Send bytes to the server and return its response. The server must close the connection."""
    with connect(server) as connection:
        connection.sendall(sent)
        return parse_response(b"".join(iter(lambda: connection.recv(65_536), b"")))


def parse_response(received: bytes) -> Response:
    """Parse a complete response."""
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("ascii").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Response(status_line, headers, json.loads(body or b"null"))


def count_malformed_requests() -> int:
    """Return how many malformed requests the metrics of the server have."""
    name = 'sartiq_problems_total{code="malformed_request",limit="",status="400"}'
    lines = httpx.get(f"http://127.0.0.1:{METRICS_PORT}/metrics").text.splitlines()
    return sum(int(float(line.removeprefix(name))) for line in lines if line.startswith(name))


@pytest.mark.parametrize("head", [[b"A: " + b"a" * 1000 + b"\r\n"] * 100, [b"A: "] + [b"a" * 10_000] * 10])
def test_s19_a_request_head_that_never_ends_is_rejected(server: RunningServer, head: list[bytes]) -> None:
    before = count_malformed_requests()
    with connect(server) as connection:
        connection.sendall(b"GET /api/v1/utils/version HTTP/1.1\r\nHost: localhost\r\n" + b"".join(head))
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    # No request reaches the application, so the line is not that of the access log.
    line = "request rejected by the HTTP protocol: 400 malformed_request: The request head is too large\n"
    assert line in server.log.read_text()
    assert count_malformed_requests() == before + 1


@pytest.mark.parametrize("method", ["BREW", "get", "CONNECT", "PROPFIND", "X-!#$%&'*+.^_`|~"])
def test_s25_an_unknown_method_is_rejected_with_405(server: RunningServer, method: str) -> None:
    request = (
        f"{method} /api/v1/brands/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    )
    status_line, headers, problem = exchange(server, request.encode("ascii"))
    assert status_line == "HTTP/1.1 405 Method Not Allowed"
    assert headers["allow"] == "get, head, options, post"
    assert problem["code"] == "method_not_allowed"
    assert problem["request_id"] == headers["x-request-id"]


def test_a_connection_stays_usable_after_an_unknown_method(server: RunningServer) -> None:
    connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=30)
    connection.connect()
    own_end = connection.sock.getsockname()
    for method, expected in (("BREW", 405), ("GET", 200), ("BREW", 405)):
        connection.request(method, "/api/v1/utils/version")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == expected
        assert connection.sock.getsockname() == own_end
    connection.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /api/v1/br\xc3\xa4nds/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"hello\r\n\r\n",
    ],
)
def test_bytes_that_are_not_http_are_rejected_with_a_problem(server: RunningServer, sent: bytes) -> None:
    status_line, headers, problem = exchange(server, sent)
    assert status_line == "HTTP/1.1 400 Bad Request"
    assert headers["content-type"] == "application/problem+json"
    assert problem == {
        "type": f"{server.origin}/api/v1/problems/malformed_request",
        "title": "Bad Request",
        "status": 400,
        "detail": "Invalid HTTP request received.",
        "code": "malformed_request",
        "request_id": headers["x-request-id"],
    }


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
def test_s45_a_request_without_exactly_one_host_is_rejected(server: RunningServer, head: bytes) -> None:
    response = exchange(server, head + b"Connection: close\r\n\r\n")
    assert (response.status, response.json["code"]) == (400, "malformed_request")
    assert response.json["detail"] == "An HTTP/1.1 request must have exactly one Host header field"


@pytest.mark.parametrize(
    "head", [REQUEST_LINE + HOST, REQUEST_LINE + b"Host:\r\n", REQUEST_LINE.replace(b"1.1", b"1.0")]
)
def test_s45_one_host_is_enough_and_http_1_0_needs_none(server: RunningServer, head: bytes) -> None:
    assert exchange(server, head + b"Connection: close\r\n\r\n").status == 200


def test_s45_a_trailer_is_no_header_field(server: RunningServer) -> None:
    with Api(server.origin) as api:
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
    assert exchange(server, head + never_matches + plain).status == 412
    assert exchange(server, head + chunked + never_matches + b"\r\n").status == 200


def test_s45_a_second_request_on_the_connection_needs_its_own_host(server: RunningServer) -> None:
    with connect(server) as connection:
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
    server: RunningServer, fields: bytes, status: int, code: str | None
) -> None:
    sent = SIGN_IN + fields + b"\r\n" + (b"a=b&" if b"Content-Length" in fields else b"")
    response = exchange(server, sent)
    assert (response.status, response.json["code"]) == (status, code or "unsupported_media_type")


@pytest.mark.parametrize("name", ["if-none-match", "if_none_match", "If_None-Match"])
def test_s45_only_the_name_with_hyphens_is_a_precondition(server: RunningServer, name: str) -> None:
    head = b"GET /api/v1/openapi.json HTTP/1.1\r\n" + HOST + b"Connection: close\r\n"
    response = exchange(server, head + f"{name}: *\r\n\r\n".encode())
    assert response.status == (304 if "_" not in name else 200)


def test_s45_a_field_with_an_underscore_counts_for_the_limit_of_headers(server: RunningServer) -> None:
    response = exchange(server, REQUEST_LINE + HOST + b"A_B: c\r\n" * 100 + b"\r\n")
    assert (response.status, response.json["detail"]) == (400, "The request head is too large")


@pytest.mark.parametrize("key", [b"a\rb", b"a\n b", b"a\r\n b", b"a\x00b"])
def test_s21_a_key_with_a_control_character_is_a_bad_request(server: RunningServer, key: bytes) -> None:
    head = b"POST /api/v1/brands/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nIdempotency-Key: "
    with connect(server) as connection:
        connection.sendall(head + key + b"\r\nContent-Type: application/json\r\n\r\n{}")
        assert connection.recv(65_536).split(b" ", 2)[1] == b"400"


class RawRequest:
    """A request whose head is sent at once and whose body is sent piece by piece."""

    def __init__(self, server: RunningServer, head: str, length: int = FILE_BYTES) -> None:
        self.connection = connect(server)
        self.connection.sendall(f"{head}\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())

    def send(self, count: int) -> None:
        """Send bytes of the body."""
        with contextlib.suppress(ConnectionError):  # the server may have closed the connection already
            self.connection.sendall(b"\x89PNG".ljust(count, b"\0"))

    def read_response(self) -> tuple[int, dict[str, str], str]:
        """Return the status, the headers and the problem code of the response."""
        received = b""
        while b"}" not in received:
            piece = self.connection.recv(65_536)
            assert piece, received
            received += piece
        response = parse_response(received)
        return response.status, response.headers, response.json["code"]

    def has_response(self) -> bool:
        """Return whether a response arrives within a tenth of a second."""
        self.connection.settimeout(0.1)
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return False
        finally:
            self.connection.settimeout(30)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def upload_head(target: str) -> str:
    return f"PUT {target} HTTP/1.1\r\nContent-Type: image/png"


def form_head(target: str, token: str | None) -> str:
    credential = "" if token is None else f"\r\nAuthorization: {token}"
    return f"POST {target} HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b{credential}"


def list_temporary_files(server: RunningServer) -> list[str]:
    """Return the open files of the server that have no name, as its temporary files."""
    links = []
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # the server may have closed the file meanwhile
            links.append(os.readlink(descriptor))
    return [link for link in links if link.endswith("(deleted)")]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists the open files of a process")
def test_s35_thirty_clients_without_a_credential_are_rejected_before_a_byte_is_read(
    server: RunningServer,
) -> None:
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        product = api.post("/products/", json={"name": "Dress"})
        token = str(api.client.headers["Authorization"])
        body = {"filename": "dress.png", "content_type": "image/png"}
        signed = urlsplit(str(api.post("/uploads/presigned-url", json=body)["upload_url"]))
        upload = f"{signed.path}?{signed.query}"
        UUID(product["id"])
        images = f"/api/v1/products/{product['id']}/images"
        subject_images = f"/api/v1/subjects/{uuid4()}/base-images"
        heads = {
            form_head(images, None): 401,
            form_head(images, "Bearer x"): 401,
            form_head(subject_images, None): 401,
            form_head(images.replace(product["id"], str(uuid4())), token): 404,
            upload_head(upload[:-1] + ("0" if upload[-1] != "0" else "1")): 403,
            upload_head(f"{signed.path}?expires=1&{signed.query.partition('&')[2]}"): 403,
        }
        before = list_temporary_files(server)
        requests = [
            (RawRequest(server, head), status)
            for head, status in heads.items()
            for _ in range(CONNECTIONS // len(heads))
        ]
        try:
            for request, status in requests:
                assert request.read_response()[0] == status
                # What still arrives is thrown away.
                request.send(3 * MEGABYTE)
            assert list_temporary_files(server) == before
        finally:
            for request, _ in requests:
                request.close()
        api.client.headers["Authorization"] = token
        assert api.get("/users/me")["email"] == EMAIL


def test_s35_a_client_that_expects_100_continue_gets_its_rejection_instead(server: RunningServer) -> None:
    head = form_head(f"/api/v1/products/{uuid4()}/images", None)
    request = RawRequest(server, f"{head}\r\nExpect: 100-continue")
    assert request.read_response()[0] == 401
    request.close()


def test_s35_unfinished_bodies_beyond_the_limit_are_503_and_free_their_share(server: RunningServer) -> None:
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        body = {"filename": "dress.png", "content_type": "image/png"}

        def start_upload() -> RawRequest:
            url = urlsplit(str(api.post("/uploads/presigned-url", json=body)["upload_url"]))
            return RawRequest(server, upload_head(f"{url.path}?{url.query}"), 40 * MEGABYTE)

        first, second, third = (start_upload() for _ in range(3))
        first.send(39 * MEGABYTE)
        assert not first.has_response()
        second.send(39 * MEGABYTE)
        status, headers, code = second.read_response()
        assert (status, code) == (503, "too_many_body_bytes")
        assert headers["retry-after"].isdigit()
        # The rejected body holds nothing any more: as many bytes of another one are received.
        third.send(15 * MEGABYTE)
        assert not third.has_response()
        first.close()
        third.send(25 * MEGABYTE)
        # Complete, and no image.
        assert third.read_response()[0] in (415, 422)
        second.close()
        third.close()
