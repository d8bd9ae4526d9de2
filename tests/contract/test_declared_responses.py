"""Each operation produces every response that the contract declares, and none of them contains a secret.

The tests check the same responses: the requests take most of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import object_session

from handlers.app import Application
from studio.media.variants import EXTENSIONS
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.limits import QuotaPolicies
from studio.rate_limits.memory_store import MemoryStore
from studio.telemetry.context import LogContext, set_log_context
from tests.contract.conflict_requests import CONFLICTS
from tests.contract.conftest import FreshTenant, LoadOtherTenant
from tests.contract.operations import OPERATIONS, Operation, Request, unknown_id
from tests.contract.secret_search import (
    CREDENTIAL,
    HASH,
    SALT,
    find_leaks,
    insert_secrets,
    list_row_secrets,
    list_settings_secrets,
)
from tests.contract.tenant import Tenant, is_for_superusers, sign_upload_request
from tests.contract.test_every_operation import describe_response
from tests.support.accounts import insufficient_headers
from tests.support.app import auth_headers
from tests.support.client import ClientResponse
from tests.support.failing_subtests import FailingSubtests
from tests.support.idempotency import mark_in_progress


class Provoker:
    """Sends a request for each declared status of an operation; `get_<status>` provokes one status."""

    def __init__(
        self,
        app: Application,
        tenant: Tenant,
        load_other_tenant: LoadOtherTenant,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.app, self.tenant, self.monkeypatch = app, tenant, monkeypatch
        self.load_other_tenant = load_other_tenant
        self.organization_id: str | None = None
        self._credentials: dict[UUID, dict[str, str]] = {}
        self._rejected_requests: dict[str, Request] = {}

    def provoke(self, status: int, media_type: str | None, name: str) -> ClientResponse:
        """Return the response to a request that should have this status and media type."""
        request = self.build_request(name, is_rejected=status >= 400)
        self.organization_id = request.path.get("organization_id", str(self.tenant.organization.id))
        if status == request.operation.success_status:
            request_media_type(request, media_type)
        send = getattr(self, f"get_{status}", None)
        if status == request.operation.success_status or send is None:
            return request.send(self.app, self.headers(request))
        return send(request)

    def build_request(self, name: str, is_rejected: bool) -> Request:
        """Return a request; rejected ones change nothing, so they share the rows that one of them needs."""
        if not is_rejected:
            return self.tenant.request_for(name)
        if name not in self._rejected_requests:
            self._rejected_requests[name] = self.tenant.request_for(name)
        return self._rejected_requests[name].replace()

    def headers(self, request: Request) -> dict[str, str]:
        """Return the credentials of a caller with the permission: one session for all requests."""
        if request.operation.is_public:
            return {}
        caller = self.tenant.caller_for(request.operation)
        if caller.id not in self._credentials:
            self._credentials[caller.id] = auth_headers(self.app, caller)
        return self._credentials[caller.id]

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
        session = object_session(self.tenant.owner)
        assert session is not None
        other_tenant = self.load_other_tenant(session)
        other = Provoker(self.app, other_tenant, self.load_other_tenant, self.monkeypatch)
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


@dataclass
class Exchange:
    """A declared response, and what the suite got."""

    status: int
    media_type: str | None
    is_success: bool
    outcome: ClientResponse | Exception
    requested_organization: str | None
    logged_organization: str | None

    def get_response(self) -> ClientResponse:
        """Return the response.

        Raises:
            Exception: what the provoker raised.
        """
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@dataclass
class ProvokedOperation:
    """The responses of an operation, and the secrets that they could have shown."""

    exchanges: list[Exchange]
    secrets: set[str]


Provoke = Callable[[str], ProvokedOperation]


@pytest.fixture(scope="module")
def provoke(
    app: Application, fresh_tenant: FreshTenant, load_other_tenant: LoadOtherTenant
) -> Iterator[Provoke]:
    """Yield a function that sends the requests to an operation once and returns the responses."""
    known: dict[str, ProvokedOperation] = {}
    log_contexts: list[LogContext] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "handlers.pipeline.middleware.observability.set_log_context",
            lambda log_context: (log_contexts.append(log_context), set_log_context(log_context)),
        )

        def provoke_once(name: str) -> ProvokedOperation:
            if name not in known:
                with fresh_tenant() as tenant:
                    provoker = Provoker(app, tenant, load_other_tenant, patch)
                    known[name] = provoke_responses(provoker, OPERATIONS[name], log_contexts)
            return known[name]

        yield provoke_once


def provoke_responses(
    provoker: Provoker, operation: Operation, log_contexts: list[LogContext]
) -> ProvokedOperation:
    """Provoke every declared response of an operation."""
    app, tenant, exchanges = provoker.app, provoker.tenant, []
    insert_secrets(tenant)
    secrets = {*list_settings_secrets(app), *list_row_secrets(app)}
    # The successful response comes last: it may delete the row that the other requests need.
    for status, media_type in sorted(
        operation.responses, key=lambda response: response[0] == operation.success_status
    ):
        log_contexts.clear()
        outcome: ClientResponse | Exception
        try:
            outcome = provoker.provoke(status, media_type, operation.operation_id)
        except Exception as error:  # noqa: BLE001 - a test reports it, and the other responses
            outcome = error
        logged = log_contexts[0].organization_id if log_contexts else None
        is_success = status == operation.success_status
        exchange = Exchange(status, media_type, is_success, outcome, provoker.organization_id, logged)
        exchanges.append(exchange)
    secrets |= {*list_row_secrets(app)}
    return ProvokedOperation(exchanges, secrets)


TAGS = list(dict.fromkeys(operation.raw["tags"][0] for operation in OPERATIONS.values()))


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.both_databases
def test_every_declared_response_is_produced(
    tag: str, provoke: Provoke, failing_subtests: FailingSubtests
) -> None:
    for name, operation in OPERATIONS.items():
        if operation.raw["tags"][0] != tag:
            continue
        for exchange in provoke(name).exchanges:
            with failing_subtests.test(f"{name} {exchange.status} {exchange.media_type}"):
                assert_is_as_declared(exchange)


def assert_is_as_declared(exchange: Exchange) -> None:
    """Assert that a response has the declared status and media type, and if it is an error, its members."""
    status, media_type, reply = exchange.status, exchange.media_type, exchange.get_response()
    assert reply.status == status, describe_response(reply)
    actual = reply.headers.get("content-type", "").partition(";")[0] or None
    assert actual == media_type, describe_response(reply)
    assert reply.headers["x-request-id"]
    if status >= 400:
        body = reply.json()
        assert reply.headers["content-type"] == "application/problem+json"
        assert (body["status"], body["request_id"]) == (status, reply.headers["x-request-id"])


def test_s05_no_response_contains_a_secret(provoke: Provoke, failing_subtests: FailingSubtests) -> None:
    """No response contains secrets of the database or the settings (API3, ASVS V8.2.3)."""
    for name in OPERATIONS:
        provoked = provoke(name)
        assert {CREDENTIAL, HASH, SALT} <= provoked.secrets
        for exchange in provoked.exchanges:
            with failing_subtests.test(f"{name} {exchange.status} {exchange.media_type}"):
                # Only successful responses may contain tokens.
                shown_by = name if exchange.is_success else ""
                assert find_leaks(exchange.get_response(), shown_by, provoked.secrets) == []


def test_s05_the_search_finds_every_kind_of_secret(app: Application, tenant: Tenant) -> None:
    insert_secrets(tenant)
    secrets = {*list_settings_secrets(app), *list_row_secrets(app)}
    planted = [HASH, SALT, CREDENTIAL, app.settings.secret_key, str(app.settings.media_dir)]
    planted += ["rt_" + "a" * 43, "whsec_" + "b" * 32, "eyJhbGciOiJI.eyJzdWIi.c2lnbmF0dXJl"]
    for secret in planted:
        response = ClientResponse(200, {}, f'{{"note": "{secret}"}}'.encode())
        assert find_leaks(response, "list_brands", secrets), f"{secret} is not found"


# Operations on resources without an organization: accounts, subscriptions, models, and unused uploads.
WITHOUT_ORGANIZATION = {
    *("request_account_deletion", "request_account_export", "list_account_exports", "get_account_export"),
    "download_account_export",
    *("test_token", "logout", "list_sessions", "end_session", "list_own_audit_events"),
    *("get_user", "get_current_user", "update_current_user", "change_password", "create_presigned_url"),
    *("list_subscriptions", "get_subscription", "renew_subscription", "list_subscription_usage"),
    *("list_organizations", "create_organization", "get_generation_model"),
}


def test_s13_requests_on_rows_of_an_organization_consume_its_limit_and_are_logged_with_it(
    provoke: Provoke, failing_subtests: FailingSubtests
) -> None:
    operations = [
        operation
        for name, operation in OPERATIONS.items()
        if not operation.is_public and not is_for_superusers(operation) and name not in WITHOUT_ORGANIZATION
    ]
    assert operations
    for operation in operations:
        for exchange in provoke(operation.operation_id).exchanges:
            if exchange.is_success:
                with failing_subtests.test(f"{operation.operation_id} {exchange.media_type}"):
                    reply = exchange.get_response()
                    assert reply.status == operation.success_status, describe_response(reply)
                    assert '"organization";' in reply.headers["ratelimit-policy"]
                    assert exchange.logged_organization == exchange.requested_organization is not None
