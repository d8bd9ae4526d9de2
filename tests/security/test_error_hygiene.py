"""An exception in any layer becomes a problem with a request id, and reveals nothing internal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from db.engine import build_engine
from db.session import Database
from handlers.app import Application
from handlers.pipeline.admission.limits import Limit
from tests.api.conftest import CommittingServer
from tests.support.client import ClientResponse, send_request
from tests.support.factories.catalog import Customer
from tests.support.rejections import Rejections
from tools.servers.databases import UNREACHABLE_URL

INTERNAL_MESSAGE = "SELECT hunter2 FROM users -- /srv/private/key.pem"
INTERNAL_WORDS = (
    b"SELECT",
    b"hunter2",
    b"users",
    b"/srv",
    b"Traceback",
    b"Error:",
    b".py",
    b"line ",
    b"psycopg",
    b"sqlalchemy",
)

# One function of each layer, which is replaced by one that raises.
LAYERS = {
    "routing": "handlers.contract.router.Router.match",
    "security": "handlers.pipeline.auth.jwt.decode",
    "limits": "studio.rate_limits.limiter.RateLimiter.consume_async",
    "negotiation": "handlers.pipeline.middleware.request_validation._require_acceptable",
    "parameters": "handlers.contract.parameters.Parameters.read",
    "body": "handlers.contract.request_bodies.RequestBody.read",
    "parsing": "handlers.contract.request_bodies.parse_json",
    "validation": "handlers.contract.request_bodies._validate",
    "bridge": "handlers.pipeline.wsgi_bridge._environ",
    "endpoint": "handlers.pipeline.endpoint.Endpoint._serve",
    "caller": "handlers.pipeline.endpoint.request_caller_context",
    "tenancy": "handlers.common.references.require_permission_in",
    "serialization": "handlers.pipeline.responding.encode_json",
    "response validation": "handlers.contract.responses.Responses.find_mismatch",
    "commit": "sqlalchemy.orm.Session.commit",
    "response": "handlers.pipeline.endpoint._build_response",
}

# Functions of the outer middleware, which run after the response has been created.
OUTER_LAYERS = {
    "request id": "handlers.pipeline.middleware.observability._request_id",
    "metrics": "handlers.pipeline.middleware.observability.metrics.record_request_start",
    "trace": "handlers.pipeline.middleware.observability.traces.start_root_span",
    "response recorder": "handlers.pipeline.middleware.observability._ResponseRecorder.__call__",
    "security headers": "handlers.pipeline.middleware.security_headers.SecurityHeaders.__call__",
    "cache control": "handlers.pipeline.middleware.security_headers._cache_control",
    "response validation": "handlers.pipeline.middleware.response_validation.ResponseValidation.__call__",
}


def raise_internal_error(*_: Any, **__: Any) -> Any:
    """Raise an exception whose message must not reach the client."""
    raise RuntimeError(INTERNAL_MESSAGE)


def assert_no_internals(
    response: ClientResponse, status: int, code: str, request_id: str = "request-with-a-fault"
) -> None:
    """Assert that the response is a problem that reveals nothing internal."""
    problem = response.json()
    assert (response.status, problem["status"], problem["code"]) == (status, status, code), response.body
    assert response.headers["content-type"] == "application/problem+json"
    assert list(problem) == ["type", "title", "status", "detail", "code", "request_id"]
    assert problem["request_id"] == response.headers["x-request-id"] == request_id
    content = response.body + repr(response.headers).encode()
    assert [word for word in INTERNAL_WORDS if word in content] == []


def create_shooting(client: Callable[..., ClientResponse]) -> ClientResponse:
    """Return the response to a request that passes every layer, those of a thread included."""
    return client("POST", "/shootings/", {"name": "Linen"}, headers={"x-request-id": "request-with-a-fault"})


@pytest.mark.parametrize("layer", LAYERS)
def test_s23_an_exception_in_a_layer_is_a_generic_problem(
    layer: str, customer: Customer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LAYERS[layer], raise_internal_error)
    response = create_shooting(customer.client)
    monkeypatch.undo()
    assert_no_internals(response, 500, "internal_error")
    # The log has the message.
    assert INTERNAL_MESSAGE in caplog.text
    assert customer.client("GET", "/shootings/").json()["count"] == 0


@pytest.mark.parametrize("layer", OUTER_LAYERS)
def test_s23_an_exception_in_outer_middleware_is_a_generic_problem_with_every_header(
    layer: str, customer: Customer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = customer.client("GET", "/brands/")
    monkeypatch.setattr(OUTER_LAYERS[layer], raise_internal_error)
    response, head = create_shooting(customer.client), customer.client("HEAD", "/brands/")
    # If reading the request's own id fails, the server generates one.
    request_id = response.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{20}" if layer == "request id" else "request-with-a-fault", request_id)
    assert_no_internals(response, 500, "internal_error", request_id)
    assert (head.status, head.body) == (500, b"")
    assert set(response.headers) == set(expected.headers) - {"link", "ratelimit", "ratelimit-policy", "vary"}
    assert response.headers["cache-control"] == "no-store"
    assert INTERNAL_MESSAGE in caplog.text
    assert REGISTRY.get_sample_value("sartiq_requests_in_progress") == 0


@pytest.mark.parametrize("layer", ["security headers", "cache control", "response validation"])
def test_s23_an_exception_in_outer_middleware_is_logged_as_500(
    layer: str,
    customer: Customer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rejections: Rejections,
) -> None:
    caplog.set_level("INFO", "sartiq.access")
    monkeypatch.setattr(OUTER_LAYERS[layer], raise_internal_error)
    assert create_shooting(customer.client).status == 500
    assert rejections.take() == {(500, "internal_error", None)}
    (line,) = [record for record in caplog.records if record.name == "sartiq.access"]
    assert vars(line)["status"] == 500


def test_s23_an_exception_in_the_error_handling_is_a_problem(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in (
        "handlers.pipeline.errors.build_problem",
        "handlers.pipeline.middleware.response_validation.build_problem",
    ):
        monkeypatch.setattr(target, raise_internal_error)
    monkeypatch.setattr(customer.client.app.endpoints["create_shooting"], "_handler", raise_internal_error)
    assert_no_internals(create_shooting(customer.client), 500, "internal_error")


def test_s23_an_unreachable_database_gives_a_problem_without_internals(
    application: Application, customer: Customer, rejections: Rejections
) -> None:
    headers = {**customer.client.headers, "x-request-id": "request-with-a-fault"}
    unreachable = Database(build_engine(UNREACHABLE_URL, pool_size=1))
    with application.database.switched_to(unreachable):
        response = send_request(application, "POST", "/api/v1/brands/", headers, as_json={"name": "Linen"})
    unreachable.dispose()
    assert_no_internals(response, 503, "unavailable")
    assert rejections.take() == {(503, "unavailable", Limit.DATABASE)}
    assert int(response.headers["retry-after"]) > 0


def test_s23_a_pool_without_a_free_connection_gives_a_problem_without_internals(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch, rejections: Rejections
) -> None:
    monkeypatch.setattr("db.engine.POOL_TIMEOUT_SECONDS", 0.2)
    url = committing_server.database.engine.url.render_as_string(hide_password=False)
    small = Database(build_engine(url, pool_size=1))
    with small.engine.connect(), committing_server.client.app.database.switched_to(small):
        response = create_shooting(committing_server.client)
    small.dispose()
    assert_no_internals(response, 503, "unavailable")
    assert rejections.take() == {(503, "unavailable", Limit.DATABASE_CONNECTIONS)}


@contextmanager
def locked_shootings(database: Database) -> Iterator[None]:
    """Hold a lock within the block that keeps other transactions from writing shootings."""
    with database.engine.connect() as connection, connection.begin():
        connection.execute(text("LOCK TABLE shootings IN ACCESS EXCLUSIVE MODE"))
        yield


def test_s23_a_held_database_lock_gives_a_problem_without_internals(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch, rejections: Rejections
) -> None:
    monkeypatch.setattr("db.engine.MAX_LOCK_WAIT_MILLISECONDS", 300)
    url = committing_server.database.engine.url.render_as_string(hide_password=False)
    impatient = Database(build_engine(url, pool_size=2, statement_seconds=20))
    app = committing_server.client.app
    with locked_shootings(committing_server.database), app.database.switched_to(impatient):
        response = create_shooting(committing_server.client)
    impatient.dispose()
    assert_no_internals(response, 503, "unavailable")
    assert rejections.take() == {(503, "unavailable", Limit.ROW_LOCKED)}


def test_s23_a_missing_file_is_a_problem(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is opened before the response starts, so an error can still become a problem."""
    monkeypatch.setattr("handlers.pipeline.wsgi_bridge._open_and_read", raise_internal_error)
    monkeypatch.setattr(customer.client.app.bridge, "_serve", _with_file(customer.client.app.bridge._serve))
    assert_no_internals(create_shooting(customer.client), 500, "internal_error")


def _with_file(serve: Callable[..., Any]) -> Callable[..., Any]:
    def serve_file(scope: Any, context: Any) -> Any:
        response = serve(scope, context)
        context.file = Path("/srv/private/key.pem")
        return response

    return serve_file
