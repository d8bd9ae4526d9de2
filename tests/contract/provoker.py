"""Provoke each response that the contract declares for an operation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import object_session

from handlers.app import Application
from handlers.common.permissions import EVERY_KEY
from studio.media.variants import EXTENSIONS
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.limits import QuotaPolicies
from studio.rate_limits.memory_store import MemoryStore
from tests.contract.conflict_requests import CONFLICTS
from tests.contract.conftest import LoadOtherTenant
from tests.contract.operations import Request, unknown_id
from tests.contract.tenant import Tenant, sign_upload_request
from tests.support.accounts import insufficient_headers
from tests.support.app import auth_headers
from tests.support.client import ClientResponse
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
        self._credentials: dict[tuple[UUID, bool], dict[str, str]] = {}
        self._rejected_requests: dict[str, Request] = {}

    def provoke(self, status: int, media_type: str | None, name: str) -> ClientResponse:
        """Return the response to a request that should have this status and media type."""
        request = self.build_request(name, is_rejected=status >= 400)
        self.organization_id = request.path.get("organization_id", str(self.tenant.organization.id))
        if status in (request.operation.success_status, 206):
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
        caller = (
            self.tenant.caller_for(request.operation).id,
            request.operation.raw["x-permission"] in EVERY_KEY,
        )
        if caller not in self._credentials:
            self._credentials[caller] = self.tenant.headers_for(self.app, request.operation)
        return self._credentials[caller]

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

    def get_206(self, request: Request) -> ClientResponse:
        return self.send(request, range="bytes=0-9")

    def get_416(self, request: Request) -> ClientResponse:
        return self.send(request, range="bytes=1000000000-")

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
        if operation.raw.get("x-permission") in EVERY_KEY:
            return request.send(self.app, auth_headers(self.app, self.tenant.owner))
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
        if request.operation.raw.get("x-ignores-unknown-parameters"):
            request.query |= {"state": "a" * 3_000, "width": "wide"}
        request.query["surprise"] = "1"
        return self.send(request)

    def get_500(self, request: Request) -> ClientResponse:
        return self.send_with_failing_handler(request, RuntimeError("secret message of a defect"))

    def get_429(self, request: Request) -> ClientResponse:
        limits: RateLimiter = self.app.services.rate_limiter
        few = QuotaPolicies.from_settings(
            replace(self.app.settings, limit_account=1, limit_key=1, limit_address=1)
        )
        with self.monkeypatch.context() as patch:
            patch.setattr("handlers.pipeline.errors.REJECTION_SECONDS", 0)
            patch.setattr(limits, "policies", few)
            patch.setattr(limits, "store", MemoryStore())
            headers = self.headers(request)
            request.replace(raw_query="q=%FF").send(self.app, headers)
            reply = request.send(self.app, headers)
        is_of_key = request.operation.raw.get("x-permission") in EVERY_KEY
        policy = "address" if request.operation.is_public else "key" if is_of_key else "account"
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
            patch.setattr(self.app.services.concurrency_limiter, "limit", 0)
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
