"""The built documentation is served below `/guides/`, outside the contract."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from handlers.app import Application
from handlers.pages import CONTENT_SECURITY_POLICY
from tests.support.app import create_test_app
from tests.support.client import send_request

PAGE = "<!doctype html><title>Webhooks</title>" + "<p>text</p>" * 100


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Application:
    """Return an application that serves a small built site, beside a file that is not part of it."""
    folder = tmp_path_factory.mktemp("guides")
    (folder / "secret.html").write_text("outside")
    root = folder / "site"
    (root / "webhooks").mkdir(parents=True)
    (root / "index.html").write_text("<!doctype html><title>Documentation</title>")
    (root / "webhooks" / "index.html").write_text(PAGE)
    (root / "search.json").write_text("{}")
    (root / "llms.txt").write_text("# Documentation\n")
    (root / "image.png").write_bytes(b"\x89PNG")
    (root / "program.exe").write_bytes(b"MZ")
    (root / "link.html").symlink_to(folder / "secret.html")
    return create_test_app(folder)


@pytest.mark.parametrize(
    ("path", "media_type"),
    {
        "": "text/html; charset=utf-8",
        "webhooks/": "text/html; charset=utf-8",
        "search.json": "application/json",
        "llms.txt": "text/plain; charset=utf-8",
        "image.png": "image/png",
    }.items(),
)
def test_a_file_has_its_type_and_the_headers_of_the_other_pages(
    site: Application, path: str, media_type: str
) -> None:
    response = send_request(site, "GET", f"/guides/{path}")
    assert response.status == 200
    assert response.headers["content-type"] == media_type
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cache-control"] == "no-cache"


def test_each_encoding_has_its_own_etag_and_304(site: Application) -> None:
    plain = send_request(site, "GET", "/guides/webhooks/")
    compressed = send_request(site, "GET", "/guides/webhooks/", {"Accept-Encoding": "gzip"})
    assert plain.body.decode() == gzip.decompress(compressed.body).decode() == PAGE
    assert plain.headers["etag"] != compressed.headers["etag"]
    assert compressed.headers["content-encoding"] == "gzip"
    for response, sent in ((plain, {}), (compressed, {"Accept-Encoding": "gzip"})):
        assert response.headers["vary"] == "Accept-Encoding"
        for tag in (response.headers["etag"], f'"other", W/{response.headers["etag"]}', "*"):
            again = send_request(site, "GET", "/guides/webhooks/", {**sent, "If-None-Match": tag})
            assert (again.status, again.body) == (304, b"")
            assert again.headers["etag"] == response.headers["etag"]
        other = send_request(site, "GET", "/guides/webhooks/", {**sent, "If-None-Match": '"other"'})
        assert (other.status, other.body) == (200, response.body)


def test_a_client_that_rejects_gzip_gets_plain_text(site: Application) -> None:
    response = send_request(site, "GET", "/guides/webhooks/", {"Accept-Encoding": "gzip;q=0, *"})
    assert "content-encoding" not in response.headers


def test_head_has_the_headers_of_get_and_writes_are_rejected(site: Application) -> None:
    head, get = send_request(site, "HEAD", "/guides/"), send_request(site, "GET", "/guides/")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(get.body))
    assert head.headers["etag"] == get.headers["etag"]
    rejected = send_request(site, "POST", "/guides/")
    assert (rejected.status, rejected.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("path", "target"),
    {
        "/guides": "/guides/",
        "/guides/index.html": "/guides/",
        "/guides/webhooks": "/guides/webhooks/",
        "/guides/webhooks/index.html": "/guides/webhooks/",
    }.items(),
)
def test_a_page_has_one_url(site: Application, path: str, target: str) -> None:
    response = send_request(site, "GET", path)
    assert (response.status, response.headers["location"]) == (308, target)


@pytest.mark.parametrize(
    "path",
    [
        "missing", "missing/", "webhooks/missing.html", "../secret.html", "%2e%2e/secret.html",
        "..%2fsecret.html", "webhooks/../../secret.html", "webhooks/..%5c..%5csecret.html", "/secret.html",
        "%00", "index.html%00.png", "program.exe", "link.html",
    ],
)  # fmt: skip
def test_a_path_that_is_no_file_of_the_site_returns_404(site: Application, path: str) -> None:
    response = send_request(site, "GET", f"/guides/{path}")
    assert response.status == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "not_found"


def test_the_home_page_links_to_the_guides_if_they_are_built(site: Application, tmp_path: Path) -> None:
    assert b'href="/guides/"' in send_request(site, "GET", "/").body
    bare = create_test_app(tmp_path)
    assert b'href="/guides/"' not in send_request(bare, "GET", "/").body
    for path in ("/guides", "/guides/"):
        hint = send_request(bare, "GET", path)
        assert hint.status == 404
        assert "make docs" in hint.body.decode()
        assert hint.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert send_request(bare, "GET", "/guides/webhooks/").json()["code"] == "not_found"
