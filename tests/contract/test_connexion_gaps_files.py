"""Gaps of stock Connexion in reading files: multipart bodies, raw bytes and sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.mini.server import USER, build_token, create_mini_app
from tests.support.client import ClientResponse, send_request

Call = Callable[..., ClientResponse]
PHOTOS = f"/widgets/{USER}/photos"


def build_multipart(*parts: tuple[str, str | None, bytes], end: str = "--b--\r\n") -> bytes:
    body = b""
    for name, filename, content in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        body += (
            f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
        )
    return body + end.encode()


def post_photo(call: Call, *parts: tuple[str, str | None, bytes], end: str = "--b--\r\n") -> ClientResponse:
    return call(
        "POST",
        PHOTOS,
        {"content-type": "multipart/form-data; boundary=b"},
        body=build_multipart(*parts, end=end),
    )


def test_a_multipart_body_has_file_and_text(call: Call) -> None:
    response = post_photo(call, ("file", "a.png", b"\x89PNG and more"), ("type", None, b"front"))
    file = {"name": "a.png", "type": "", "size": 13, "start": "89504e47"}
    assert response.json() == {"file": file, "kind": "front"}


def test_an_operation_accepts_its_other_media_type_too(call: Call) -> None:
    assert call("POST", PHOTOS, as_json={"file_url": "http://x/y"}).json() == {"file_url": "http://x/y"}
    assert call("POST", PHOTOS, as_json={"file": "x"}).status == 422


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; charset=utf-8"],
)
def test_multipart_without_a_boundary_is_400(call: Call, content_type: str) -> None:
    assert (
        call(
            "POST", PHOTOS, {"content-type": content_type}, body=build_multipart(("type", None, b"front"))
        ).status
        == 400
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense",
        b"--b",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nnonsense\r\n\r\nx\r\n--b--\r\n",
    ],
)
def test_malformed_multipart_is_400(call: Call, raw: bytes) -> None:
    assert call("POST", PHOTOS, {"content-type": "multipart/form-data; boundary=b"}, body=raw).status == 400


@pytest.mark.parametrize("field", ["type", "title", "unknown"])
def test_text_of_a_part_that_is_not_utf_8_is_400(call: Call, field: str) -> None:
    response = post_photo(call, ("file", "a.png", b"x"), (field, None, b"front\xff\xfe"))
    assert (response.status, response.json()["code"]) == (400, "malformed_request")
    assert "not UTF-8" in response.json()["detail"]


def test_the_name_of_a_part_that_is_not_utf_8_is_400(call: Call) -> None:
    raw = b'--b\r\nContent-Disposition: form-data; name="t\xff"\r\n\r\nfront\r\n--b--\r\n'
    assert call("POST", PHOTOS, {"content-type": "multipart/form-data; boundary=b"}, body=raw).status == 400


def test_bytes_of_a_file_need_not_be_utf_8(call: Call) -> None:
    assert post_photo(call, ("file", "a.png", b"\xff\xfe"), ("type", None, b"front")).status < 300


def test_multipart_that_stops_in_the_middle_is_400(call: Call) -> None:
    assert post_photo(call, ("file", "a.png", b"x"), ("type", None, b"front"), end="").status == 400


def test_s19_multipart_with_too_much_text_or_too_many_parts_is_413(call: Call) -> None:
    assert post_photo(call, ("type", None, b"x" * 1_100_000)).status == 413
    assert post_photo(call, *[(f"f{number}", None, b"") for number in range(1001)]).status == 413


def test_a_file_sent_as_text_and_a_text_sent_as_file_are_violations(call: Call) -> None:
    assert post_photo(call, ("file", None, b"x"), ("type", None, b"front")).error_types == {
        ("body", "file"): "file_type"
    }
    response = post_photo(call, ("file", "a.png", b"x"), ("type", "t.txt", b"front"))
    assert response.error_types == {("body", "type"): "string_type"}


def test_missing_unknown_and_repeated_parts_are_violations(call: Call) -> None:
    response = post_photo(
        call, ("type", None, b"sideways"), ("extra", None, b"1"), ("other", "o", b"1"), ("other", "o", b"2")
    )
    assert response.error_types == {
        ("body", "file"): "missing",
        ("body", "type"): "enum",
        ("body", "extra"): "extra_forbidden",
        ("body", "other"): "repeated",
    }


@pytest.mark.parametrize("media_type", ["image/png", "IMAGE/WebP", "application/octet-stream"])
def test_raw_bytes_are_passed_as_a_file(call: Call, media_type: str) -> None:
    response = call("PUT", "/raw", {"content-type": media_type}, body=[b"\x89PNG", b"x" * 2_000_000, b"y"])
    assert response.json() == {"size": 2_000_005, "start": "89504e47"}


def test_empty_bytes_and_bytes_of_another_type_are_rejected(call: Call) -> None:
    assert call("PUT", "/raw", {"content-type": "image/png"}, body=b"").error_types == {("body",): "missing"}
    assert call("PUT", "/raw", {"content-type": "video/mp4"}, body=b"x").status == 415


@pytest.mark.parametrize("content_type", ["image/png", "multipart/form-data; boundary=b"])
def test_s10_an_upload_over_its_limit_is_413_while_it_streams(content_type: str) -> None:
    app = create_mini_app(max_upload_bytes=1000)
    target = "/api/v1/raw" if content_type == "image/png" else f"/api/v1{PHOTOS}"
    method = "PUT" if content_type == "image/png" else "POST"
    start = b"" if content_type == "image/png" else build_multipart(("file", "a", b""), end="")[:-2]
    headers = {"content-type": content_type, "authorization": f"Bearer {build_token()}"}
    sent_pieces = 0

    def pieces() -> Any:
        nonlocal sent_pieces
        yield start
        for _ in range(10):
            sent_pieces += 1
            yield b"x" * 40_000

    response = send_request(app, method, target, headers, body=pieces())
    assert response.status == 413
