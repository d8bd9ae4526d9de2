"""Documents are compressed for clients that accept gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from handlers.app import Application
from tests.support import factories
from tests.support.app import replace_service
from tests.support.client import ClientResponse, send_request

DOCUMENTS = [
    f"/api/v1/{path}"
    for path in (
        "openapi.json", "openapi.yaml", "docs", "docs/swagger-ui-bundle.js", "docs/docs.css",
        "docs/code-samples.json", "docs/permissions", "docs/states", "problems/", "problems/not_found",
    )
]  # fmt: skip
SCRIPT = "/api/v1/docs/swagger-ui-bundle.js"


def fetch_plain_and_compressed(
    app: Application, path: str, method: str = "GET", **headers: str
) -> tuple[ClientResponse, ClientResponse]:
    """Return the plain and the compressed response."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    return send_request(app, method, path, sent), send_request(
        app, method, path, {**sent, "accept-encoding": "gzip"}
    )


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_document_is_the_same_in_both_encodings_and_each_has_its_own_tag(
    app: Application, path: str
) -> None:
    plain, compressed = fetch_plain_and_compressed(app, path)
    assert "content-encoding" not in plain.headers
    assert compressed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(compressed.body) == plain.body
    assert compressed.headers["content-length"] == str(len(compressed.body))
    assert len(compressed.body) < len(plain.body)
    assert compressed.headers["content-type"] == plain.headers["content-type"]
    assert compressed.headers["etag"] != plain.headers["etag"]
    assert compressed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", DOCUMENTS)
def test_head_returns_the_headers_of_get_in_both_encodings(app: Application, path: str) -> None:
    for head, get in zip(
        fetch_plain_and_compressed(app, path, "HEAD"), fetch_plain_and_compressed(app, path), strict=True
    ):
        assert (head.status, head.body) == (200, b"")
        for name in ("etag", "vary", "content-type", "content-length", "content-encoding"):
            assert head.headers.get(name) == get.headers.get(name)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_each_content_encoding_has_its_own_etag(app: Application, path: str) -> None:
    plain, compressed = (response.headers["etag"] for response in fetch_plain_and_compressed(app, path))
    for known, statuses in {
        plain: [304, 200],
        compressed: [200, 304],
        f"{plain}, {compressed}": [304, 304],
    }.items():
        responses = fetch_plain_and_compressed(app, path, if_none_match=known)
        assert [response.status for response in responses] == statuses
        for response, tag in zip(responses, (plain, compressed), strict=True):
            assert (response.headers["etag"], response.headers["vary"]) == (tag, "Accept-Encoding")
            if response.status == 304:
                assert response.body == b""
                assert "content-encoding" not in response.headers


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"), ("GZIP", "gzip"), ("gzip, deflate, br, zstd", "gzip"), ("*", "gzip"),
        ("br;q=1, gzip;q=0.001", "gzip"), ("identity;q=0, gzip", "gzip"), ("identity;q=0.5, gzip", "gzip"),
        ("gzip;q=0", None), ("gzip;q=0, *", None), ("*;q=0", None), ("br", None), ("identity", None),
        ("", None), ("identity, gzip;q=0.9", None), ("gzip;q=much", None), ("gzipped", None), (";,q", None),
    ],
)  # fmt: skip
def test_the_encoding_is_one_that_the_client_accepts(
    app: Application, accepted: str, encoding: str | None
) -> None:
    response = send_request(app, "GET", SCRIPT, {"accept-encoding": accepted})
    assert (response.status, response.headers.get("content-encoding")) == (200, encoding)


def test_a_compressed_response_is_validated_too(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_service(monkeypatch, app, compressed_contract=zlib.compress(b"[]"))
    for response in fetch_plain_and_compressed(app, "/api/v1/openapi.json"):
        assert (response.status, response.json()["code"]) == (500, "internal_error")
        assert "content-encoding" not in response.headers


def test_responses_with_personal_data_are_never_compressed(client_for: Callable[[Any], Any]) -> None:
    client = client_for(factories.make_user())
    response = client("GET", "/users/me", headers={"accept-encoding": "gzip"})
    assert response.status == 200
    assert "content-encoding" not in response.headers
