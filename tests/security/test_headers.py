"""Security headers, Cache-Control and CORS of every response."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from db.base import utc_now
from handlers.app import Application
from studio.infrastructure.settings import InvalidSettings, Settings
from tests.contract.mini.server import build_token, create_mini_app
from tests.contract.operations import OPERATIONS, resolve
from tests.contract.tenant import Tenant
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, drop_rate_limit_headers, send_request

APP, OTHER = "https://app.example.com", "https://evil.example.com"
COMMON_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
DEFAULT_CSP = "default-src 'none'; frame-ancestors 'none'"


@pytest.fixture(scope="module")
def single_origin_app() -> Iterator[Application]:
    """Yield an application behind HTTPS that allows one other origin to read its responses."""
    app = create_mini_app(public_url="https://api.example.com", cors_origins=(APP,))
    yield app
    app.bridge.pool.shutdown()


@pytest.fixture(scope="module")
def default_app() -> Iterator[Application]:
    """Yield an application with default settings."""
    app = create_mini_app()
    yield app
    app.bridge.pool.shutdown()


REQUESTS: dict[str, tuple[str, str]] = {
    "a row": ("GET", "/api/v1/widgets/me"),
    "a list": ("GET", "/api/v1/widgets/"),
    "an unknown row": ("GET", "/api/v1/widgets/01990000-5eed-7000-8000-0000000000ff"),
    "an unknown path": ("GET", "/nothing"),
    "a control character": ("GET", "/api/v1/widgets/%0A"),
    "an unknown method": ("BREW", "/api/v1/widgets/"),
    "the methods of a path": ("OPTIONS", "/api/v1/widgets/"),
    "a redirect": ("GET", "/api/v1/widgets"),
    "the home page": ("GET", "/"),
    "security.txt": ("GET", "/.well-known/security.txt"),
    "the API catalog": ("GET", "/.well-known/api-catalog"),
    "a HEAD request": ("HEAD", "/api/v1/widgets/me"),
}


def request_as_user(app: Application, method: str, target: str, **headers: str) -> ClientResponse:
    """Return the response to a request with a token; underscores in header names become dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return send_request(app, method, target, {"authorization": f"Bearer {build_token()}", **named})


@pytest.mark.parametrize("what", REQUESTS)
def test_s25_every_response_of_every_layer_has_the_security_headers(
    what: str, default_app: Application, single_origin_app: Application
) -> None:
    for app in (default_app, single_origin_app):
        response = request_as_user(app, *REQUESTS[what])
        assert {name: response.headers.get(name) for name in COMMON_HEADERS} == COMMON_HEADERS
        assert "geolocation=()" in response.headers["permissions-policy"]
        assert response.headers["cache-control"]
        assert "server" not in response.headers
        if what != "the home page":
            assert response.headers["content-security-policy"] == DEFAULT_CSP


def test_s25_only_a_server_behind_https_sends_hsts(
    default_app: Application, single_origin_app: Application
) -> None:
    target = "/api/v1/widgets/me"
    assert "strict-transport-security" not in send_request(default_app, "GET", target).headers
    hsts = send_request(single_origin_app, "GET", target).headers["strict-transport-security"]
    assert hsts == "max-age=63072000; includeSubDomains"


def test_s25_rows_are_cached_privately_and_lists_and_problems_are_not_stored(
    default_app: Application,
) -> None:
    row = request_as_user(default_app, "GET", "/api/v1/widgets/me")
    assert row.headers["cache-control"] == "private, no-cache"
    not_modified = request_as_user(
        default_app, "GET", "/api/v1/widgets/me", if_none_match=row.headers["etag"]
    )
    assert (not_modified.status, not_modified.headers["cache-control"]) == (304, "private, no-cache")
    for target in ("/api/v1/widgets/", "/api/v1/nothing", "/api/v1/widgets/"):
        assert request_as_user(default_app, "GET", target).headers["cache-control"] == "no-store"
    assert send_request(default_app, "GET", "/api/v1/widgets/me").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("origin", [APP, OTHER, "null", "https://app.example.com.evil.example.com"])
def test_s25_no_site_may_read_responses_unless_the_settings_list_it(
    default_app: Application, origin: str
) -> None:
    for method, target in REQUESTS.values():
        response = request_as_user(
            default_app, method, target, origin=origin, access_control_request_method="GET"
        )
        assert [name for name in response.headers if name.startswith("access-control")] == []


@pytest.mark.parametrize(
    "origin",
    [OTHER, "null", "*", "http://app.example.com", f"{APP}:8443", f"{APP}.evil.example.com", APP.upper(), ""],
)
def test_s25_an_origin_is_never_reflected_and_credentials_never_allowed(
    single_origin_app: Application, origin: str
) -> None:
    for method, target in REQUESTS.values():
        response = request_as_user(
            single_origin_app, method, target, origin=origin, access_control_request_method="GET"
        )
        assert [name for name in response.headers if name.startswith("access-control")] == []
        assert response.headers["vary"] == "Origin"


def test_s25_a_listed_site_may_read_responses_and_problems_without_cookies(
    single_origin_app: Application,
) -> None:
    for method, target in REQUESTS.values():
        response = request_as_user(single_origin_app, method, target, origin=APP)
        assert response.headers["access-control-allow-origin"] == APP
        exposed = response.headers["access-control-expose-headers"].split(", ")
        assert {"ETag", "Location", "X-Request-Id", "Retry-After"} <= set(exposed)
        assert "access-control-allow-credentials" not in response.headers
        assert response.headers["vary"] == "Origin"


def test_s25_a_preflight_response_lists_the_methods_of_its_path(single_origin_app: Application) -> None:
    preflight = {"origin": APP, "access-control-request-method": "POST"}
    response = send_request(single_origin_app, "OPTIONS", "/api/v1/widgets/", preflight)
    assert (response.status, response.body) == (204, b"")
    assert response.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS, POST"
    assert response.headers["access-control-max-age"] == "600"
    allowed = response.headers["access-control-allow-headers"].split(", ")
    assert {"Authorization", "Content-Type", "X-Request-Id"} <= set(allowed)
    unknown = send_request(single_origin_app, "OPTIONS", "/api/v1/nothing", preflight)
    assert (unknown.status, "access-control-allow-methods" in unknown.headers) == (404, False)


@pytest.mark.parametrize(
    "invalid", ["*", "app.example.com", "https://app.example.com/", "null", "https://*.example.com"]
)
def test_s25_the_settings_accept_exact_origins_only(invalid: str) -> None:
    with pytest.raises(InvalidSettings, match="CORS_ORIGINS"):
        Settings.from_environment({"CORS_ORIGINS": invalid})
    listed = Settings.from_environment({"CORS_ORIGINS": f"{APP}, http://localhost:3000"})
    assert listed.cors_origins == (APP, "http://localhost:3000")


def test_s25_the_security_txt_follows_rfc_9116(
    default_app: Application, single_origin_app: Application
) -> None:
    response = send_request(single_origin_app, "GET", "/.well-known/security.txt")
    assert (response.status, response.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    fields = dict(line.split(": ", 1) for line in response.body.decode().splitlines())
    assert list(fields) == ["Contact", "Expires", "Preferred-Languages", "Canonical"]
    assert fields["Canonical"] == "https://api.example.com/.well-known/security.txt"
    expires = datetime.fromisoformat(fields["Expires"])
    assert timedelta(days=30) < expires - utc_now() < timedelta(days=365)
    assert b"Canonical" not in send_request(default_app, "GET", "/.well-known/security.txt").body
    assert send_request(default_app, "POST", "/.well-known/security.txt").status == 405


def test_s25_the_security_contact_comes_from_the_settings_or_the_host() -> None:
    named = Settings.from_environment({"SECURITY_CONTACT": "https://example.com/report"})
    assert named.security_contact == "https://example.com/report"
    host = Settings.from_environment({"PUBLIC_URL": "https://api.example.com:8443"})
    assert host.security_contact == "mailto:security@api.example.com"
    with pytest.raises(InvalidSettings, match="SECURITY_CONTACT"):
        Settings.from_environment({"SECURITY_CONTACT": "security@example.com"})


@pytest.fixture
def tenant(app: Application) -> Tenant:
    """Return a tenant with a row of every kind in this test's database."""
    return Tenant(app.settings)


def test_s25_a_304_repeats_the_policy_headers_of_the_full_response(
    app: Application, tenant: Tenant, subtests: pytest.Subtests
) -> None:
    for name in [name for name, operation in OPERATIONS.items() if "304" in operation.raw["responses"]]:
        with subtests.test(name):
            assert_same_policy_headers(app, tenant, name)


def assert_same_policy_headers(app: Application, tenant: Tenant, name: str) -> None:
    """Fail if the 304 of an operation has other policy headers than its 200."""
    request = tenant.request_for(name)
    is_public = request.operation.is_public
    credentials = {} if is_public else tenant.headers_for(app, request.operation)
    full = request.send(app, credentials)
    not_modified = request.send(app, {**credentials, "if-none-match": full.headers["etag"]})
    assert (full.status, not_modified.status) == (200, 304)
    headers = drop_rate_limit_headers(full.headers)
    body_headers = {"content-type", "content-length", "x-request-id"}
    assert {name: text for name, text in headers.items() if name not in body_headers} == {
        name: text
        for name, text in drop_rate_limit_headers(not_modified.headers).items()
        if name != "x-request-id"
    }


def test_s45_no_asgi_server_can_pass_a_field_with_an_underscore_to_the_handlers(
    app: Application, tenant: Tenant
) -> None:
    request, credentials = tenant.request_for("get_brand"), auth_headers(app, tenant.owner)
    assert request.send(app, {**credentials, "if-none-match": "*"}).status == 304
    assert request.send(app, {**credentials, "if_none_match": "*"}).status == 200


# Properties that are credentials. A URL that needs no token is one, too.
CREDENTIALS = {"access_token", "refresh_token", "secret", "key", "token", "upload_url"}
LINKS = {"share_prediction"}


def list_credential_responses() -> dict[str, dict[str, Any]]:
    """Return the responses of the contract that contain credentials, by operation."""
    responses = {}
    for name, operation in OPERATIONS.items():
        response = resolve(operation.raw["responses"][str(operation.success_status)])
        schema = resolve(response.get("content", {}).get("application/json", {}).get("schema", {}))
        if name in LINKS or CREDENTIALS & set(schema.get("properties", {})):
            responses[name] = response
    return responses


def test_s25_the_contract_declares_no_store_for_responses_with_credentials() -> None:
    responses = list_credential_responses()
    assert {"login", "refresh_token", "create_webhook_endpoint", "rotate_webhook_secret"} <= set(responses)
    undeclared = [
        name
        for name, response in responses.items()
        if resolve(response["headers"].get("Cache-Control", {})).get("schema", {}).get("enum") != ["no-store"]
    ]
    assert undeclared == []


@pytest.mark.parametrize("name", list_credential_responses())
def test_s25_responses_with_credentials_are_not_stored(name: str, app: Application, tenant: Tenant) -> None:
    request = tenant.request_for(name)
    operation = request.operation
    response = request.send(
        app, {} if operation.is_public else auth_headers(app, tenant.caller_for(operation))
    )
    assert response.status == operation.success_status, response.body
    assert response.headers["cache-control"] == "no-store"
