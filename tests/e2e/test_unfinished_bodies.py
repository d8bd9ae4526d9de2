"""S35 on the wire: bodies of clients without a credential are not read, and unfinished bodies are limited."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest

from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.server import RunningServer, running_server

CONNECTIONS = 30
MEGABYTE = 1_000_000
FILE_BYTES = 50 * MEGABYTE
MAX_HELD_BYTES = 60 * MEGABYTE
"""The smallest limit that the settings allow; the default is 250 MB."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server that holds few bytes of one address."""
    folder = tmp_path_factory.mktemp("unfinished")
    with running_server(
        folder, MAX_ADDRESS_BODY_BYTES=str(MAX_HELD_BYTES), RENDER_WORKERS="0", WEBHOOK_SENDERS="0"
    ) as running:
        yield running


class RawRequest:
    """A request whose head is sent at once and whose body is sent piece by piece."""

    def __init__(self, server: RunningServer, head: str, length: int = FILE_BYTES) -> None:
        url = urlsplit(server.origin)
        self.connection = socket.create_connection((url.hostname, url.port), timeout=30)
        self.connection.sendall(f"{head}\r\nHost: {url.netloc}\r\nContent-Length: {length}\r\n\r\n".encode())

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
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("ascii").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, json.loads(body)["code"]

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
        with contextlib.suppress(OSError):  # the server may have closed the connection already
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
