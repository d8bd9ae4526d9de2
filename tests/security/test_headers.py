"""What every answer tells browsers, and what pages of other sites may read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from db.base import utc_now
from db.session import Database
from handlers.app import Application
from studio.settings import InvalidSettings, Settings
from tests.contract.mini.server import build_token, create_mini_app
from tests.contract.operations import OPERATIONS, resolve
from tests.contract.tenant import Tenant
from tests.support.app import auth_headers, create_test_app
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
    """A server behind HTTPS that one other site may read."""
    app = create_mini_app(public_url="https://api.example.com", cors_origins=(APP,))
    yield app
    app.bridge.pool.shutdown()


@pytest.fixture(scope="module")
def default_app() -> Iterator[Application]:
    """A server as it is without settings."""
    app = create_mini_app()
    yield app
    app.bridge.pool.shutdown()


REQUESTS: dict[str, tuple[str, str]] = {
    "a row": ("GET", "/api/v1/widgets/me"),
    "a list": ("GET", "/api/v1/widgets/"),
    "no such row": ("GET", "/api/v1/widgets/01990000-5eed-7000-8000-0000000000ff"),
    "no such path": ("GET", "/nothing"),
    "a control character": ("GET", "/api/v1/widgets/%0A"),
    "no such method": ("BREW", "/api/v1/widgets/"),
    "what can be done": ("OPTIONS", "/api/v1/widgets/"),
    "a redirect": ("GET", "/api/v1/widgets"),
    "the page at the root": ("GET", "/"),
    "whom to tell of a hole": ("GET", "/.well-known/security.txt"),
    "what this host offers": ("GET", "/.well-known/api-catalog"),
    "a head": ("HEAD", "/api/v1/widgets/me"),
}


def request_as_user(app: Application, method: str, target: str, **headers: str) -> ClientResponse:
    """Return the answer to a request with a token; underscores in header names become dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return send_request(app, method, target, {"authorization": f"Bearer {build_token()}", **named})


@pytest.mark.parametrize("what", REQUESTS)
def test_s25_every_answer_of_every_layer_tells_browsers_what_not_to_do(
    what: str, default_app: Application, single_origin_app: Application
) -> None:
    for app in (default_app, single_origin_app):
        reply = request_as_user(app, *REQUESTS[what])
        assert {name: reply.headers.get(name) for name in COMMON_HEADERS} == COMMON_HEADERS
        assert "geolocation=()" in reply.headers["permissions-policy"]
        assert reply.headers["cache-control"]
        assert "server" not in reply.headers
        if what != "the page at the root":
            assert reply.headers["content-security-policy"] == DEFAULT_CSP


def test_s25_only_a_server_behind_https_insists_on_it(
    default_app: Application, single_origin_app: Application
) -> None:
    target = "/api/v1/widgets/me"
    assert "strict-transport-security" not in send_request(default_app, "GET", target).headers
    told = send_request(single_origin_app, "GET", target).headers["strict-transport-security"]
    assert told == "max-age=63072000; includeSubDomains"


def test_s25_rows_are_cached_privately_and_lists_and_problems_are_not_stored(
    default_app: Application,
) -> None:
    row = request_as_user(default_app, "GET", "/api/v1/widgets/me")
    assert row.headers["cache-control"] == "private, no-cache"
    same = request_as_user(default_app, "GET", "/api/v1/widgets/me", if_none_match=row.headers["etag"])
    assert (same.status, same.headers["cache-control"]) == (304, "private, no-cache")
    for target in ("/api/v1/widgets/", "/api/v1/nothing", "/api/v1/widgets/"):
        assert request_as_user(default_app, "GET", target).headers["cache-control"] == "no-store"
    assert send_request(default_app, "GET", "/api/v1/widgets/me").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("origin", [APP, OTHER, "null", "https://app.example.com.evil.example.com"])
def test_s25_no_site_may_read_answers_unless_the_settings_name_it(
    default_app: Application, origin: str
) -> None:
    for method, target in REQUESTS.values():
        reply = request_as_user(
            default_app, method, target, origin=origin, access_control_request_method="GET"
        )
        assert [name for name in reply.headers if name.startswith("access-control")] == []


@pytest.mark.parametrize(
    "origin",
    [OTHER, "null", "*", "http://app.example.com", f"{APP}:8443", f"{APP}.evil.example.com", APP.upper(), ""],
)
def test_s25_an_origin_is_never_reflected_and_credentials_never_allowed(
    single_origin_app: Application, origin: str
) -> None:
    for method, target in REQUESTS.values():
        reply = request_as_user(
            single_origin_app, method, target, origin=origin, access_control_request_method="GET"
        )
        assert [name for name in reply.headers if name.startswith("access-control")] == []
        assert reply.headers["vary"] == "Origin"


def test_s25_the_named_site_reads_answers_and_problems_and_never_with_cookies(
    single_origin_app: Application,
) -> None:
    for method, target in REQUESTS.values():
        reply = request_as_user(single_origin_app, method, target, origin=APP)
        assert reply.headers["access-control-allow-origin"] == APP
        shown = reply.headers["access-control-expose-headers"].split(", ")
        assert {"ETag", "Location", "X-Request-Id", "Retry-After"} <= set(shown)
        assert "access-control-allow-credentials" not in reply.headers
        assert reply.headers["vary"] == "Origin"


def test_s25_a_preflight_is_answered_by_the_paths_own_methods(single_origin_app: Application) -> None:
    asked = {"origin": APP, "access-control-request-method": "POST"}
    reply = send_request(single_origin_app, "OPTIONS", "/api/v1/widgets/", asked)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS, POST"
    assert reply.headers["access-control-max-age"] == "600"
    allowed = reply.headers["access-control-allow-headers"].split(", ")
    assert {"Authorization", "Content-Type", "X-Request-Id"} <= set(allowed)
    unknown = send_request(single_origin_app, "OPTIONS", "/api/v1/nothing", asked)
    assert (unknown.status, "access-control-allow-methods" in unknown.headers) == (404, False)


@pytest.mark.parametrize(
    "wrong", ["*", "app.example.com", "https://app.example.com/", "null", "https://*.example.com"]
)
def test_s25_the_settings_take_exact_origins_only(wrong: str) -> None:
    with pytest.raises(InvalidSettings, match="CORS_ORIGINS"):
        Settings.from_environment({"CORS_ORIGINS": wrong})
    listed = Settings.from_environment({"CORS_ORIGINS": f"{APP}, http://localhost:3000"})
    assert listed.cors_origins == (APP, "http://localhost:3000")


def test_s25_the_security_txt_is_one_of_rfc_9116(
    default_app: Application, single_origin_app: Application
) -> None:
    reply = send_request(single_origin_app, "GET", "/.well-known/security.txt")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    fields = dict(line.split(": ", 1) for line in reply.body.decode().splitlines())
    assert list(fields) == ["Contact", "Expires", "Preferred-Languages", "Canonical"]
    assert fields["Canonical"] == "https://api.example.com/.well-known/security.txt"
    expires = datetime.fromisoformat(fields["Expires"])
    assert timedelta(days=30) < expires - utc_now() < timedelta(days=365)
    assert b"Canonical" not in send_request(default_app, "GET", "/.well-known/security.txt").body
    assert send_request(default_app, "POST", "/.well-known/security.txt").status == 405


def test_s25_the_contact_is_that_of_the_settings_or_of_the_host() -> None:
    named = Settings.from_environment({"SECURITY_CONTACT": "https://example.com/report"})
    assert named.security_contact == "https://example.com/report"
    host = Settings.from_environment({"PUBLIC_URL": "https://api.example.com:8443"})
    assert host.security_contact == "mailto:security@api.example.com"
    with pytest.raises(InvalidSettings, match="SECURITY_CONTACT"):
        Settings.from_environment({"SECURITY_CONTACT": "security@example.com"})


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The real application, made once."""
    made = create_test_app(tmp_path_factory.mktemp("headers"))
    yield made
    made.bridge.pool.shutdown()


@pytest.fixture
def tenant(app: Application, database: Database) -> Iterator[Tenant]:
    """A tenant with a row of every kind, and the app on this test's database."""
    with app.database.switched_to(database):
        yield Tenant(app.settings)


@pytest.mark.parametrize("name", [name for name, one in OPERATIONS.items() if "304" in one.raw["responses"]])
def test_s25_a_304_takes_no_policy_from_the_copy_that_it_confirms(
    name: str, app: Application, tenant: Tenant
) -> None:
    request = tenant.request_for(name)
    is_open = request.operation.is_public
    who = {} if is_open else auth_headers(app, tenant.caller_for(request.operation))
    whole = request.send(app, who)
    known = request.send(app, {**who, "if-none-match": whole.headers["etag"]})
    assert (whole.status, known.status) == (200, 304)
    told = drop_rate_limit_headers(whole.headers)
    of_the_body = {"content-type", "content-length", "x-request-id"}
    assert {name: text for name, text in told.items() if name not in of_the_body} == {
        name: text for name, text in drop_rate_limit_headers(known.headers).items() if name != "x-request-id"
    }


# Properties that are credentials; a link that needs no token is one too.
CREDENTIALS = {"access_token", "refresh_token", "secret", "key", "token", "upload_url"}
LINKS = {"share_prediction"}


def list_credential_responses() -> dict[str, dict[str, Any]]:
    """Return the answers of the contract that hold credentials, by operation."""
    found = {}
    for name, operation in OPERATIONS.items():
        answer = resolve(operation.raw["responses"][str(operation.success_status)])
        schema = resolve(answer.get("content", {}).get("application/json", {}).get("schema", {}))
        if name in LINKS or CREDENTIALS & set(schema.get("properties", {})):
            found[name] = answer
    return found


def test_s25_the_contract_says_that_answers_with_credentials_are_never_stored() -> None:
    answers = list_credential_responses()
    assert {"login", "refresh_token", "create_webhook_endpoint", "rotate_webhook_secret"} <= set(answers)
    silent = [
        name
        for name, answer in answers.items()
        if resolve(answer["headers"].get("Cache-Control", {})).get("schema", {}).get("enum") != ["no-store"]
    ]
    assert silent == []


@pytest.mark.parametrize("name", list_credential_responses())
def test_s25_answers_with_credentials_are_never_stored(name: str, app: Application, tenant: Tenant) -> None:
    request = tenant.request_for(name)
    operation = request.operation
    reply = request.send(app, {} if operation.is_public else auth_headers(app, tenant.caller_for(operation)))
    assert reply.status == operation.success_status, reply.body
    assert reply.headers["cache-control"] == "no-store"
