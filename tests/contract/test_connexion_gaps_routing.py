"""Gaps of stock Connexion in routing, methods, content negotiation and security."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from tests.contract.mini.server import SECRET, SUPERUSER, USER, build_token, create_mini_app
from tests.support.auth import assert_challenge
from tests.support.client import ClientResponse, send_request

Call = Callable[..., ClientResponse]


@pytest.mark.parametrize(
    "path",
    [
        "/widgets/abc%0A",
        "/widgets/%0Aabc",
        "/widgets/a%0Ab",
        "/widgets/%00",
        "/widgets/%7F",
        "/widgets/me%0D%0AX-Evil:1",
        "//widgets/",
        "/widgets//",
        "/widgets/%2F",
        f"/widgets/{USER}%2Fphotos%2F",
        "/widgets/../widgets/..",
        "/Widgets/",
        "/nothing",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_unknown_path_is_the_same_404(mini: Any, method: str, path: str) -> None:
    # Without a token: an unknown path must be 404, not 401.
    response = send_request(mini, method, f"/api/v1{path}")
    assert (response.status, response.json()["code"]) == (404, "not_found")
    assert response.headers["content-type"] == "application/problem+json"


def test_an_operation_is_never_reached_without_security(mini: Any) -> None:
    for target in ("/widgets/", "/widgets/me", f"/widgets/{USER}"):
        assert send_request(mini, "GET", f"/api/v1{target}").status == 401


def test_a_path_outside_of_the_base_path_is_404(mini: Any) -> None:
    for path in ("/api/v1", "/api/v2/widgets/", "/widgets/", "/favicon.ico"):
        assert send_request(mini, "GET", path).json()["code"] == "not_found"


def test_stock_pages_of_connexion_are_not_served(mini: Any) -> None:
    for path in ("/api/v1/ui/", "/api/v1/openapi.json", "/api/v1/swagger.json"):
        assert send_request(mini, "GET", path).status == 404


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_a_collection_without_its_slash_redirects_on_this_host_and_keeps_the_query(
    mini: Any, method: str
) -> None:
    response = send_request(mini, method, "/api/v1/widgets?limit=5&tags=a%20b", {"host": "evil.example"})
    assert (response.status, response.headers["location"]) == (308, "/api/v1/widgets/?limit=5&tags=a%20b")
    assert "x-request-id" in response.headers


def test_an_item_path_with_a_slash_is_404(call: Call) -> None:
    for path in (f"/widgets/{USER}/", "/widgets/me/", f"/widgets/{USER}/photos/"):
        assert call("GET", path).status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "CONNECT", "PROPFIND", "BREW", "get"])
def test_s25_405_names_every_method_of_the_path(mini: Any, method: str) -> None:
    response = send_request(mini, method, "/api/v1/widgets/")
    assert (response.status, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_the_page_at_the_root_is_read_only(mini: Any) -> None:
    assert [send_request(mini, method, "/").status for method in ("GET", "HEAD", "OPTIONS")] == [
        200,
        200,
        204,
    ]
    for method in ("POST", "DELETE", "BREW"):
        response = send_request(mini, method, "/")
        assert (response.status, response.json()["code"]) == (405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_concrete_path_takes_precedence_over_a_template(call: Call) -> None:
    assert call("GET", "/widgets/me").json()["name"] == "mine"
    assert call("DELETE", "/widgets/me").status == 405
    assert call("DELETE", "/widgets/me").headers["allow"] == "GET, HEAD, OPTIONS"
    assert call("OPTIONS", f"/widgets/{USER}").headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


def test_s25_options_is_204_with_allow_and_needs_no_token(mini: Any) -> None:
    response = send_request(mini, "OPTIONS", "/api/v1/widgets/")
    assert (response.status, response.body, response.headers["allow"]) == (
        204,
        b"",
        "GET, HEAD, OPTIONS, POST",
    )
    assert send_request(mini, "OPTIONS", "/api/v1/nothing").status == 404


def test_head_works_like_get_without_a_body(call: Call, mini: Any) -> None:
    get, head = call("GET", "/widgets/me"), call("HEAD", "/widgets/me")
    assert (head.status, head.body) == (200, b"")
    for name in ("etag", "content-length", "content-type"):
        assert head.headers[name] == get.headers[name]
    denied = send_request(mini, "HEAD", "/api/v1/widgets/me")
    assert (denied.status, denied.body) == (401, b"")
    assert (
        send_request(mini, "HEAD", "/api/v1/file").headers["content-length"]
        == send_request(mini, "GET", "/api/v1/file").headers["content-length"]
    )


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("application/*", 200),
        ("*/*", 200),
        ("text/html, */*;q=0.1", 200),
        ("APPLICATION/JSON;q=0.5", 200),
        ("nonsense", 200),
        ("", 200),
        ("text/html", 406),
        ("application/problem+json", 200),
        ("application/json;q=0", 406),
        ("application/json;q=0, */*", 406),
        ("application/*;q=0, */*", 406),
        ("application/*;q=0, application/json;q=0.1", 200),
        ("application/json; charset=utf-8", 200),
        ("text/html, application/json;q=1.2.3", 200),
        # The default of Java's HttpURLConnection, which Werkzeug's parser rejects: docs/decisions/0005.
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", 200),
    ],
)
def test_accept_is_honored(call: Call, accept: str, status: int) -> None:
    assert call("GET", "/widgets/", {"accept": accept}).status == status


@pytest.mark.parametrize("credentials", [None, "", "Bearer", "Bearer ", "Basic eDp5", "Token abc", "bearer"])
def test_missing_credentials_are_401_not_authenticated(mini: Any, credentials: str | None) -> None:
    headers = {} if credentials is None else {"authorization": credentials}
    response = send_request(mini, "GET", "/api/v1/widgets/?limit=nonsense", headers)
    assert (response.status, response.json()["code"]) == (401, "not_authenticated")
    assert response.json()["detail"] == "Not authenticated"
    assert response.headers["www-authenticate"] == "Bearer"


def build_foreign_token(**changes: Any) -> str:
    claims = jwt.decode(build_token(), SECRET, ["HS256"], audience="sartiq-api")
    return jwt.encode({**claims, **changes.pop("claims", {})}, **changes)


@pytest.mark.parametrize(
    "credential",
    [
        "garbage", "a.b.c", "SCHEMATHESIS-INVALID", "é" * 3, build_token() + "x", build_token()[:-4],
        build_token(exp=int(time.time()) - 1), build_token(exp=None),
        build_token(iss="other"), build_token(iss=None),
        build_token(aud="other"), build_token(aud=None), build_token(type="refresh"),
        build_token(type=None), build_token(sub=None),
        build_token(sub="me"), build_token(sid=None), build_token(jti=None),
        build_foreign_token(key="another secret of at least 32 bytes", algorithm="HS256"),
        build_foreign_token(key=SECRET, algorithm="HS512"), build_foreign_token(key="", algorithm="none"),
    ],
)  # fmt: skip
def test_an_invalid_token_is_401_invalid_token(mini: Any, credential: str) -> None:
    response = send_request(mini, "GET", "/api/v1/widgets/", {"authorization": f"Bearer {credential}"})
    assert (response.status, response.json()["code"]) == (401, "invalid_token")
    assert response.json()["detail"] == "Could not validate credentials"
    assert_challenge(response)


def test_the_scheme_is_case_insensitive(mini: Any) -> None:
    assert (
        send_request(mini, "GET", "/api/v1/widgets/", {"authorization": f"bearer {build_token()}"}).status
        == 200
    )


def test_a_permission_of_superusers_is_denied_to_other_callers(mini: Any, outcomes: list[str]) -> None:
    target = f"/api/v1/widgets/{USER}"
    response = send_request(mini, "DELETE", target, {"authorization": f"Bearer {build_token()}"})
    assert (response.status, response.json()["code"]) == (403, "not_enough_permissions")
    assert response.json()["detail"] == "Not enough permissions"
    assert (
        send_request(mini, "DELETE", target, {"authorization": f"Bearer {build_token(sub=SUPERUSER)}"}).status
        == 204
    )
    assert outcomes == ["rolled back", "committed"]


@pytest.mark.parametrize("request_id", ["abc", "0b4f-4c0e.6f_9", "x" * 64])
def test_a_valid_request_id_is_used(mini: Any, request_id: str) -> None:
    response = send_request(mini, "GET", "/api/v1/widgets/", {"x-request-id": request_id})
    assert response.headers["x-request-id"] == response.json()["request_id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 65, "a b", "é", "<script>", "a,b"])
def test_any_other_request_id_is_replaced(mini: Any, request_id: str) -> None:
    response = send_request(mini, "GET", "/api/v1/widgets/", {"x-request-id": request_id})
    assert response.headers["x-request-id"] == response.json()["request_id"] != request_id
    assert len(response.headers["x-request-id"]) == 20


def test_every_request_writes_one_log_line_with_its_id(mini: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sartiq.access"):
        send_request(mini, "GET", "/api/v1/widgets/a%0Ab", {"x-request-id": "line-1"})
    (record,) = caplog.records
    assert record.getMessage().startswith("GET /api/v1/widgets/* 404 ")
    assert record.request_id == "line-1"


def test_a_matching_etag_is_304_without_a_body(call: Call) -> None:
    etag = call("GET", "/widgets/me").headers["etag"]
    for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = call("GET", "/widgets/me", {"if-none-match": header})
        assert (response.status, response.body, response.headers["etag"]) == (304, b"", etag)
        assert "content-type" not in response.headers
    for header in ('"other"', "", "nonsense", etag.strip('"')):
        assert call("GET", "/widgets/me", {"if-none-match": header}).status == 200


def test_the_setting_limits_the_number_of_request_threads() -> None:
    assert create_mini_app(request_threads=3).bridge.pool._max_workers == 3


def test_options_of_the_whole_server_names_every_method(mini: Any) -> None:
    response = send_request(mini, "OPTIONS", "*")
    assert (response.status, response.headers["allow"]) == (
        204,
        "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
    )
    assert send_request(mini, "GET", "*").status == 404
