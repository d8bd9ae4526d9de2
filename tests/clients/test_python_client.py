"""Tests of the parts of the Python client that need no failing server."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import time
import tomllib
from typing import Any

import pytest
from standardwebhooks import Webhook

import sartiq
from sartiq._call import Call, text, to_json
from sartiq._configuration import resolve_credentials, resolve_url
from sartiq._retries import RetryPolicy, read_retry_after
from sartiq.errors import build_error
from tests.clients.scripted_server import Answer, ScriptedServer
from tools.clients.generate import BUNDLE
from tools.clients.python_package import NOT_FOR_CLIENTS, PROJECT

CONTRACT = json.loads(BUNDLE.read_text(encoding="utf-8"))
OPERATIONS = {
    node["operationId"]: node["tags"][0].replace("-", "_")
    for item in CONTRACT["paths"].values()
    for node in item.values()
    if isinstance(node, dict) and "operationId" in node
}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT = {
    "type": "generation.completed",
    "timestamp": "2026-11-02T09:15:00Z",
    "data": {"id": "g1", "organization_id": None, "status": "completed", "url": "https://example.com/g1"},
}


def test_the_version_is_that_of_the_contract() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == CONTRACT["info"]["version"] == sartiq.__version__


def test_each_operation_has_a_method_in_both_clients() -> None:
    with sartiq.Sartiq(token="sk_test") as client:
        for name, tag in OPERATIONS.items():
            assert hasattr(getattr(client, tag, None), name) == (name not in NOT_FOR_CLIENTS), name
    asynchronous = sartiq.AsyncSartiq(token="sk_test")
    for name, tag in OPERATIONS.items():
        assert hasattr(getattr(asynchronous, tag, None), name) == (name not in NOT_FOR_CLIENTS), name


def test_a_method_documents_its_arguments() -> None:
    with sartiq.Sartiq(token="sk_test") as client:
        documentation = inspect.getdoc(client.products.create_product) or ""
    assert documentation.startswith("Create a product.")
    assert "sku: Stock keeping unit" in documentation


def test_unknown_properties_and_enum_members_are_kept(scripted_server: ScriptedServer) -> None:
    movement = {"resource_type": "campaign", "data": {"id": "c1"}}
    scripted_server.answer_with(Answer(200, {"results": [movement], "count": 1, "season": "summer"}))
    with sartiq.Sartiq(scripted_server.url, token="sk_test") as client:
        results = client.search.search(q="dress")
    assert results.model_extra == {"season": "summer"}
    (result,) = results.results
    assert result.model_dump() == movement
    status: Any = sartiq.models.ProductSummary.model_validate(
        {"id": "p1", "name": "Mug", "sku": None, "external_id": None, "color": "blue"}
    )
    assert status.color == "blue"


def test_a_response_of_another_form_is_an_error_of_the_client(scripted_server: ScriptedServer) -> None:
    scripted_server.answer_with(Answer(200, b"<html>Welcome to the hotel</html>"))
    with (
        sartiq.Sartiq(scripted_server.url, token="sk_test") as client,
        pytest.raises(sartiq.errors.InvalidResponseError, match="does not match User"),
    ):
        client.users.get_current_user()


def test_omitted_arguments_are_absent_and_none_is_null(scripted_server: ScriptedServer) -> None:
    scripted_server.answer_with(Answer(404, {}))
    with sartiq.Sartiq(scripted_server.url, token="sk_test") as client:
        with pytest.raises(sartiq.NotFoundError):
            client.products.update_product("p 1/2", sku=None, if_match='"v1"')
        with pytest.raises(sartiq.NotFoundError):
            client.products.list_products(include_public=True, ids=["a", "b"])
    update, listing = scripted_server.requests
    assert (update.path, update.body) == ("/api/v1/products/p%201%2F2", b'{"sku": null}')
    assert update.headers["if-match"] == '"v1"'
    assert listing.path == "/api/v1/products/?ids=a%2Cb&include_public=true"


def test_the_organization_of_the_client_is_the_default(scripted_server: ScriptedServer) -> None:
    scripted_server.answer_with(Answer(404, {}))
    with sartiq.Sartiq(scripted_server.url, token="sk_test", organization_id="o1") as client:
        for organization in ({}, {"organization_id": "o2"}):
            with pytest.raises(sartiq.NotFoundError):
                client.brands.create_brand(name="Linea", **organization)
        with pytest.raises(sartiq.NotFoundError):
            client.brands.get_brand("b1")
    assert [request.path for request in scripted_server.requests] == [
        "/api/v1/brands/?organization_id=o1",
        "/api/v1/brands/?organization_id=o2",
        "/api/v1/brands/b1",
    ]


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_identifier_is_not_sent(scripted_server: ScriptedServer, value: Any) -> None:
    """With an empty one, the URL would be that of the list."""
    with (
        sartiq.Sartiq(scripted_server.url, token="sk_test") as client,
        pytest.raises(sartiq.errors.ConfigurationError, match="The argument `brand_id` is empty"),
    ):
        client.brands.delete_brand(value)
    assert scripted_server.requests == []


@pytest.mark.parametrize(
    ("member", "shown"),
    [
        ({"required_permission": "brands:write", "required_scope": "brands:write"}, "needed: brands:write"),
        ({"allowed_transitions": ["approve", "reject"]}, "allowed: approve, reject"),
        ({"allowed_values": ["BASE"]}, "allowed: BASE"),
        ({"pointer": "/brand_id"}, "at /brand_id"),
        ({"parameter": "prediction_id"}, "parameter prediction_id"),
    ],
)
def test_an_error_says_what_the_request_needs(member: dict[str, Any], shown: str) -> None:
    problem = {"code": "rejected", "detail": "No", "request_id": "r1", **member}
    assert str(sartiq.APIError(409, problem, {})) == f"409 rejected: No ({shown}, request r1)"


def test_half_of_the_credentials_is_named_as_it_was_passed() -> None:
    with pytest.raises(sartiq.errors.ConfigurationError, match="Pass both SARTIQ_EMAIL and SARTIQ_PASSWORD"):
        resolve_credentials(None, None, None, None, {"SARTIQ_EMAIL": "a@example.com"})
    with pytest.raises(sartiq.errors.ConfigurationError, match="Pass both `email` and `password`"):
        resolve_credentials(None, "a@example.com", None, None, {})


def test_problems_have_violations() -> None:
    violation = {
        "loc": ["body", "images", 0, "type"],
        "msg": "Unknown",
        "type": "enum",
        "pointer": "/images/0/type",
    }
    error = build_error(422, json.dumps({"code": "invalid_request", "detail": [violation]}).encode(), {})
    assert isinstance(error, sartiq.UnprocessableError)
    assert error.violations[0].loc == ("body", "images", 0, "type")
    assert str(error) == "422 invalid_request: body.images.0.type: Unknown"


@pytest.mark.parametrize(
    ("url", "resolved"),
    [
        ("https://studio.example.com", "https://studio.example.com/api/v1"),
        ("https://studio.example.com/", "https://studio.example.com/api/v1"),
        ("https://example.com/sartiq/api/v1/", "https://example.com/sartiq/api/v1"),
        (None, "http://localhost:8000/api/v1"),
    ],
)
def test_the_base_path_is_added_to_an_origin(url: str | None, resolved: str) -> None:
    assert resolve_url(url, {}) == resolved


def test_a_url_of_another_kind_is_rejected() -> None:
    with pytest.raises(sartiq.errors.ConfigurationError, match="is not a URL such as"):
        resolve_url("studio.example.com", {})


def test_arguments_come_before_the_environment() -> None:
    environment = {"SARTIQ_TOKEN": "sk_environment", "SARTIQ_EMAIL": "a@example.com", "SARTIQ_PASSWORD": "x"}
    tokens = resolve_credentials(None, None, None, None, environment).tokens
    assert tokens is not None
    assert tokens.access_token == "sk_environment"
    chosen = resolve_credentials(None, "b@example.com", "y", None, environment)
    assert (chosen.tokens, chosen.email) == (None, "b@example.com")
    with pytest.raises(sartiq.errors.ConfigurationError):
        resolve_credentials(None, "b@example.com", None, None, environment)


def test_without_credentials_the_first_request_says_what_is_missing() -> None:
    with (
        sartiq.Sartiq("http://127.0.0.1:9") as client,
        pytest.raises(sartiq.errors.ConfigurationError, match="SARTIQ_TOKEN"),
    ):
        client.users.get_current_user()


def test_a_password_is_not_in_the_text_of_the_credentials() -> None:
    assert "secret" not in repr(resolve_credentials(None, "a@example.com", "secret", None, {}))


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (True, "true"),
        (["a", "b"], "a,b"),
        (dt.date(2026, 11, 2), "2026-11-02"),
        (dt.datetime(2026, 11, 2, 9, 15, tzinfo=dt.UTC), "2026-11-02T09:15:00Z"),
        (dt.datetime(2026, 11, 2, 9, 15, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2026-11-02T07:15:00Z"),
    ],
)
def test_values_in_urls_have_the_form_of_the_contract(value: object, sent: str) -> None:
    assert text(value) == sent


def test_an_object_that_is_no_json_is_rejected() -> None:
    with pytest.raises(TypeError, match="object cannot be sent as JSON"):
        to_json(object())


def test_the_delay_is_at_least_what_the_server_asks_for() -> None:
    error = build_error(429, b"{}", {"retry-after": "3"})
    delays = [RetryPolicy().after_response(Call("GET", "/"), 0, error) for _ in range(50)]
    assert all(delay is not None and 3 <= delay <= 4 for delay in delays)
    assert len(set(delays)) > 1, "many clients would return at once"


def test_retry_after_is_a_number_or_a_date() -> None:
    assert read_retry_after({"retry-after": "7"}) == 7
    assert read_retry_after({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}) == 0
    assert read_retry_after({"retry-after": "soon"}) is None
    assert read_retry_after({}) is None


def sign(body: bytes, secret: str = SECRET, age: float = 0) -> dict[str, str]:
    """Return the headers that the library of the specification makes."""
    timestamp = dt.datetime.fromtimestamp(time.time() - age, tz=dt.UTC)
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(timestamp.timestamp())),
        "Webhook-Signature": f"v1,AAAA {Webhook(secret).sign('msg_1', timestamp, body.decode())}",
    }


def test_a_signed_webhook_is_an_event() -> None:
    body = json.dumps(EVENT).encode()
    event = sartiq.webhooks.verify(body, sign(body), SECRET)
    assert (event.type, event.data.status) == ("generation.completed", "completed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"secret": "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "No signature"),
        ({"age": 301}, "too old"),
        ({"age": -301}, "too old"),
    ],
)
def test_other_webhooks_are_rejected(change: dict[str, Any], message: str) -> None:
    body = json.dumps(EVENT).encode()
    with pytest.raises(sartiq.WebhookVerificationError, match=message):
        sartiq.webhooks.verify(body, sign(body, **change), SECRET)


def test_a_changed_webhook_is_rejected() -> None:
    body = json.dumps(EVENT).encode()
    with pytest.raises(sartiq.WebhookVerificationError, match="No signature"):
        sartiq.webhooks.verify(body + b" ", sign(body), SECRET)
    with pytest.raises(sartiq.WebhookVerificationError, match="header"):
        sartiq.webhooks.verify(body, {}, SECRET)
