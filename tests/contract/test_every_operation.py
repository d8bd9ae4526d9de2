"""Every operation of the contract behaves as declared; each test runs once per operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from handlers.app import Application
from handlers.contract.document import Document
from studio.media.variants import EXTENSIONS
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.limits import QuotaPolicies
from studio.rate_limits.memory_store import MemoryStore
from studio.telemetry.context import LogContext, set_log_context
from tests.contract.conflict_requests import CONFLICTS
from tests.contract.examples import list_invalid_examples
from tests.contract.operations import OPERATIONS, Operation, Request, unknown_id
from tests.contract.tenant import Tenant, is_for_superusers, make_more_rows, sign_upload_request
from tests.support.accounts import insufficient_headers
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, send_request
from tests.support.idempotency import mark_in_progress


def for_each_operation(predicate: Callable[[Operation], bool] = lambda operation: True) -> Any:
    """Parametrize a test with the names of the operations that match a predicate."""
    names = [name for name, operation in OPERATIONS.items() if predicate(operation)]
    return pytest.mark.parametrize("name", names)


def describe_response(reply: ClientResponse) -> str:
    """Describe a response for the message of a failed assertion."""
    return f"{reply.status} {reply.body[:600]!r}"


@for_each_operation(lambda operation: operation.forbids_unknown_properties)
def test_s04_an_unknown_property_is_rejected(name: str, app: Application, tenant: Tenant) -> None:
    request = tenant.request_for(name)
    request.media_type = "application/json"
    request.body = {**tenant.body_for(request.operation, "application/json"), "surprise": 1}
    reply = request.send(app, auth_headers(app, tenant.caller_for(request.operation)))
    assert reply.status == 422, describe_response(reply)
    assert reply.error_types[("body", "surprise")] == "extra_forbidden"


# Properties that only the response to the creation contains.
SHOWN_ONCE = {
    "create_webhook_endpoint": ("secret",),
    "create_api_key": ("secret",),
    "create_review_link": ("url",),
}


@for_each_operation(lambda operation: operation.success_status == 201)
@pytest.mark.both_databases
def test_a_created_resource_is_found_at_its_location(name: str, app: Application, tenant: Tenant) -> None:
    request = tenant.request_for(name)
    headers = auth_headers(app, tenant.caller_for(request.operation))
    reply = request.send(app, headers)
    assert reply.status == 201, describe_response(reply)
    fetched = send_request(app, "GET", reply.headers["location"], headers)
    created = {key: value for key, value in reply.json().items() if key not in SHOWN_ONCE.get(name, ())}
    assert (fetched.status, fetched.json()) == (200, created)
    assert fetched.headers["etag"] == reply.headers["etag"]


# Operations on resources without an organization: accounts, subscriptions, models, and unused uploads.
WITHOUT_ORGANIZATION = {
    *("request_account_deletion", "request_account_export", "list_account_exports", "get_account_export"),
    "download_account_export",
    *("test_token", "logout", "list_sessions", "end_session", "list_own_audit_events"),
    *("get_user", "get_current_user", "update_current_user", "change_password", "create_presigned_url"),
    *("list_subscriptions", "get_subscription", "renew_subscription", "list_subscription_usage"),
    *("list_organizations", "create_organization", "get_generation_model"),
}


@for_each_operation(
    lambda operation: (
        not operation.is_public
        and not is_for_superusers(operation)
        and operation.operation_id not in WITHOUT_ORGANIZATION
    )
)
def test_s13_requests_on_rows_of_an_organization_consume_its_limit_and_are_logged_with_it(
    name: str, app: Application, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_contexts: list[LogContext] = []
    monkeypatch.setattr(
        "handlers.pipeline.middleware.observability.set_log_context",
        lambda log_context: (log_contexts.append(log_context), set_log_context(log_context)),
    )
    request = tenant.request_for(name)
    reply = request.send(app, auth_headers(app, tenant.owner))
    assert reply.status == request.operation.success_status, describe_response(reply)
    assert '"organization";' in reply.headers["ratelimit-policy"]
    assert log_contexts[0].organization_id == request.path.get("organization_id", str(tenant.organization.id))


class Provoker:
    """Sends a request for each declared status of an operation; `get_<status>` provokes one status."""

    def __init__(
        self, app: Application, tenant: Tenant, other_tenant: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.app, self.tenant, self.other_tenant, self.monkeypatch = app, tenant, other_tenant, monkeypatch

    def provoke(self, status: int, media_type: str | None, name: str) -> ClientResponse:
        """Return the response to a request that should have this status and media type."""
        request = self.tenant.request_for(name)
        if status == request.operation.success_status:
            request_media_type(request, media_type)
        send = getattr(self, f"get_{status}", None)
        if status == request.operation.success_status or send is None:
            return request.send(self.app, self.headers(request))
        return send(request)

    def headers(self, request: Request) -> dict[str, str]:
        """Return the credentials of a caller with the permission."""
        if request.operation.is_public:
            return {}
        return auth_headers(self.app, self.tenant.caller_for(request.operation))

    def send(self, request: Request, method: str | None = None, **headers: str) -> ClientResponse:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return request.send(self.app, {**self.headers(request), **named}, method)

    def get_200(self, request: Request) -> ClientResponse:
        request.query["validate_only"] = "true"
        return self.send(request)

    def get_201(self, request: Request) -> ClientResponse:
        request.path["external_id"] = "not-used-yet"
        request.body = {"name": "Linen wrap dress"}
        return self.send(request)

    def get_204(self, request: Request) -> ClientResponse:
        return self.send(request, last_event_id=str(self.tenant.rows["generation"].revision))

    def get_304(self, request: Request) -> ClientResponse:
        tag = self.send(request).headers["etag"]
        return self.send(request, if_none_match=tag)

    def get_400(self, request: Request) -> ClientResponse:
        return self.send(request.replace(raw_query="q=%FF"))

    def get_401(self, request: Request) -> ClientResponse:
        if not request.operation.is_public:
            return request.send(self.app)
        for key in ("password", "token", "refresh_token"):
            if key in request.body:
                request.body[key] = "not-the-one"
        if "webhook-signature" in request.headers:
            request.headers["webhook-signature"] = "v1,bm90LXRoZS1vbmU="
        return request.send(self.app)

    def get_403(self, request: Request) -> ClientResponse:
        if request.operation.is_public:
            request.query["signature"] = "bm90LXRoZS1vbmU"
            return request.send(self.app)
        return request.send(self.app, insufficient_headers(self.app, self.tenant, request.operation))

    def get_404(self, request: Request) -> ClientResponse:
        operation = request.operation
        if "external_id" in request.path:
            # A PUT would create an unknown product.
            request.query["organization_id"] = unknown_id()
        elif operation.path_names():
            last = operation.path_names()[-1]
            other = {
                "share_token": "abc.def",
                "file_name": "other.png",
                "asset_name": "none.js",
                "email": "\x1f",
                "code": "none_such",
            }
            request.path[last] = other.get(last, unknown_id())
        elif "organization_id" in request.query:
            request.query["organization_id"] = unknown_id()
        elif any(parameter["name"] == "cursor" for parameter in operation.parameters):
            request.query["cursor"] = "bm9uZQ"
        else:
            foreign = f"{self.app.settings.public_url}/api/v1/files/media/{unknown_id()}/file.png"
            request.body["logo_url"] = foreign
        if operation.operation_id == "put_upload":
            sign_upload_request(self.tenant, request)
        return self.send(request)

    def get_405(self, request: Request) -> ClientResponse:
        reply = self.send(request, method="TRACE")
        assert request.operation.method in reply.headers["allow"].split(", ")
        return reply

    def get_406(self, request: Request) -> ClientResponse:
        return self.send(request, accept="application/x-unknown")

    def get_408(self, request: Request) -> ClientResponse:
        bodies = self.app.endpoints[request.operation.operation_id]._operation.request_body
        with self.monkeypatch.context() as patch:
            patch.setattr(bodies, "limits", replace(bodies.limits, timeout_seconds=0.01))
            reply = request.send(self.app, self.headers(request), stalls=True)
        assert reply.headers["connection"] == "close"
        return reply

    def get_409(self, request: Request) -> ClientResponse:
        # In the other tenant: the conflicting rows would also prevent the successful response.
        other = Provoker(self.app, self.other_tenant, self.tenant, self.monkeypatch)
        request = other.tenant.request_for(request.operation.operation_id)
        prepare_conflict = CONFLICTS.get(request.operation.operation_id)
        if prepare_conflict is None:
            return other.send_while_in_progress(request)
        prepare_conflict(other.tenant, request)
        return other.send(request)

    def send_while_in_progress(self, request: Request) -> ClientResponse:
        """Return the 409 of an operation whose only conflict is an idempotency key in progress."""
        key = unknown_id()
        self.send(request, idempotency_key=key)
        mark_in_progress(self.app, key)
        return self.send(request, idempotency_key=key)

    def get_412(self, request: Request) -> ClientResponse:
        return self.send(request, if_match='"another version"')

    def get_413(self, request: Request) -> ClientResponse:
        return self.send(request, content_length="99999999999")

    def get_415(self, request: Request) -> ClientResponse:
        return self.send(request, content_type="application/x-unknown")

    def get_422(self, request: Request) -> ClientResponse:
        request.query["surprise"] = "1"
        return self.send(request)

    def get_500(self, request: Request) -> ClientResponse:
        return self.send_with_failing_handler(request, RuntimeError("secret message of a defect"))

    def get_429(self, request: Request) -> ClientResponse:
        limits: RateLimiter = self.app.app.config["LIMITS"]
        few = QuotaPolicies.from_settings(replace(self.app.settings, limit_account=1, limit_address=1))
        with self.monkeypatch.context() as patch:
            patch.setattr("handlers.pipeline.errors.REJECTION_SECONDS", 0)
            patch.setattr(limits, "policies", few)
            patch.setattr(limits, "store", MemoryStore())
            headers = self.headers(request)
            request.replace(raw_query="q=%FF").send(self.app, headers)
            reply = request.send(self.app, headers)
        policy = "address" if request.operation.is_public else "account"
        assert (reply.json()["policy"], reply.headers["retry-after"]) == (policy, "60")
        assert reply.headers["ratelimit-policy"] == f'"{policy}";q=1;w=60'
        assert reply.headers["ratelimit"] == f'"{policy}";r=0;t=60'
        if not request.operation.path.startswith("/utils/"):
            self.check_concurrency_limit(request)
        return reply

    def check_concurrency_limit(self, request: Request) -> None:
        """Assert that the operation rejects a request whose account or address has too many running."""
        with self.monkeypatch.context() as patch:
            patch.setattr("handlers.pipeline.errors.REJECTION_SECONDS", 0)
            patch.setattr(self.app.app.config["CONCURRENCY"], "limit", 0)
            reply = request.send(self.app, self.headers(request))
        assert (reply.status, reply.json()["code"]) == (429, "too_many_concurrent_requests")
        assert {"ratelimit", "ratelimit-policy", "retry-after"} <= reply.headers.keys()

    def get_503(self, request: Request) -> ClientResponse:
        reply = self.send_with_failing_handler(
            request, OperationalError("SELECT secret", {}, Exception("no connection"))
        )
        assert int(reply.headers["retry-after"]) > 0
        return reply

    def send_with_failing_handler(self, request: Request, error: Exception) -> ClientResponse:
        """Return the response of an operation whose handler raises."""
        endpoint = self.app.endpoints[request.operation.operation_id]

        def fail(**_arguments: Any) -> None:
            raise error

        with self.monkeypatch.context() as patch:
            patch.setattr(endpoint, "_handler", fail)
            reply = self.send(request)
        assert b"secret" not in reply.body
        return reply


def request_media_type(request: Request, media_type: str | None) -> None:
    """Set the path or query parameter that selects this media type."""
    if request.operation.operation_id == "get_docs_asset":
        names = {
            "text/css": "docs.css",
            "text/javascript": "docs.js",
            "application/json": "code-samples.json",
        }
        request.path["asset_name"] = names[str(media_type)]
    kind = str(media_type).removeprefix("image/")
    if request.operation.operation_id == "get_published_image":
        content_hash = request.path["file_name"].partition(".")[0]
        request.path["file_name"] = f"{content_hash}.{EXTENSIONS[kind]}"
    for parameter in request.operation.parameters:
        if kind in parameter["schema"].get("enum", ()):
            request.query[parameter["name"]] = kind


@for_each_operation()
@pytest.mark.both_databases
def test_every_declared_response_is_produced(
    name: str, app: Application, tenant: Tenant, other_tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    provoker, operation = Provoker(app, tenant, other_tenant, monkeypatch), OPERATIONS[name]
    # The successful response comes last: it may delete the row that the other requests need.
    for status, media_type in sorted(
        operation.responses, key=lambda response: response[0] == operation.success_status
    ):
        reply = provoker.provoke(status, media_type, name)
        assert reply.status == status, f"expected {status}: {describe_response(reply)}"
        actual = reply.headers.get("content-type", "").partition(";")[0] or None
        assert actual == media_type, f"expected {status} with {media_type}: {describe_response(reply)}"
        assert reply.headers["x-request-id"]
        if status >= 400:
            body = reply.json()
            assert reply.headers["content-type"] == "application/problem+json"
            assert (body["status"], body["request_id"]) == (status, reply.headers["x-request-id"])


LISTS = [
    name
    for name, operation in OPERATIONS.items()
    # Reports have a cursor, and only one order.
    if {"cursor", "sort"} <= {parameter["name"] for parameter in operation.parameters}
]


@pytest.fixture
def statements(database_engine: Engine) -> Iterator[list[str]]:
    """Yield the SQL statements of the last request, without savepoints."""
    recorded: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "SAVEPOINT" not in statement:
            recorded.append(statement)

    event.listen(database_engine, "before_cursor_execute", record)
    yield recorded
    event.remove(database_engine, "before_cursor_execute", record)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.both_databases
def test_cursor_pagination_returns_each_row_once_with_a_constant_number_of_queries(
    name: str, app: Application, tenant: Tenant, statements: list[str]
) -> None:
    request = tenant.request_for(name)
    headers = auth_headers(app, tenant.caller_for(request.operation))
    create_more_rows(tenant, name)

    def page(**query: Any) -> tuple[dict[str, Any], int]:
        statements.clear()
        reply = request.replace(query={**request.query, **query}).send(app, headers)
        assert reply.status == 200, describe_response(reply)
        return reply.json(), len(statements)

    everything, statements_for_all = page()
    assert everything["count"] >= 3
    current, statements_for_one = page(limit=1)
    assert len(current["data"]) == 1
    assert statements_for_one == statements_for_all
    rows, cursor = list(current["data"]), current["next_cursor"]
    while cursor:
        current, _ = page(limit=1, cursor=cursor)
        rows += current["data"]
        cursor = current["next_cursor"]
    assert [row["id"] for row in rows] == [row["id"] for row in everything["data"]]
    skipped, _ = page(limit=2, skip=1)
    assert skipped["data"] == everything["data"][1:3]
    assert skipped["count"] == everything["count"]


def create_more_rows(tenant: Tenant, name: str) -> None:
    """Create rows until a list has at least three."""
    make_more_rows(tenant, name, 3)


def test_every_example_of_the_contract_validates(app: Application) -> None:
    assert list_invalid_examples() == []


def test_the_served_contract_is_the_committed_one(app: Application, tenant: Tenant) -> None:
    """Only the URL of the server is that of `PUBLIC_URL`, and each operation has code samples."""
    public_url = app.settings.public_url
    for name, file in (("get_openapi_json", "openapi.json"), ("get_openapi_30_json", "openapi-3.0.json")):
        served = Document(tenant.request_for(name).send(app).json())
        for operation in served.operations():
            samples = operation.definition.pop("x-codeSamples")
            assert [sample["label"] for sample in samples] == ["curl", "Python", "JavaScript"]
            assert all(f"{public_url}/api/v1/" in sample["source"] for sample in samples) or (
                operation.operation_id in ("put_upload", "get_published_image", "get_shared_image")
            )
        committed = (Path(__file__).parents[2] / "openapi" / file).read_text(encoding="utf-8")
        expected = committed.replace('"url": "/api/v1"', f'"url": "{public_url}/api/v1"')
        assert expected != committed
        assert served.to_json().decode() == expected
