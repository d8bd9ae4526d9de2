"""What the endpoint says about limits of requests: whose rows are touched, and how the caller stands.

A request is counted once by each limit, however often it is looked at on its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

from connexion.exceptions import OAuthProblem
from flask import current_app, request
from starlette.types import ASGIApp, Receive, Scope, Send

from db.errors import RateLimited, Unauthenticated
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.rate_limits.client_address import get_rate_limit_address
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.limits import LimitUsage, QuotaPolicy


def record_usage(call: RequestContext, limit_usages: Iterable[LimitUsage]) -> None:
    """Let the answer tell how things stand; RateLimited when one of the limits is used up."""
    for standing in limit_usages:
        call.limit_usages.append(standing)
        if not standing.allowed:
            raise RateLimited(standing.policy.name, standing.reset_seconds)


def consume_organization_limit(
    rate_limiter: RateLimiter, call: RequestContext, organization_id: UUID
) -> None:
    """Count a request for the first organization whose rows it touches; RateLimited when that has no more."""
    policy = rate_limiter.policies.organization
    if call.operation is not None and call.operation.is_rate_limited and not call.has_consumed(policy.name):
        record_usage(call, [rate_limiter.consume(policy, str(organization_id))])


def current_rate_limiter() -> RateLimiter:
    """Return the limits of the running application."""
    return cast(RateLimiter, current_app.config["LIMITS"])


def client_address() -> str:
    """Return the address that the running request is counted under."""
    return get_rate_limit_address(cast(Any, request).remote_addr or "")


class RateLimitMiddleware:
    """Counts requests to limited operations in its way of doing so."""

    def __init__(self, app: ASGIApp, *, limits: RateLimiter) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises RateLimited."""
        call: RequestContext | None = scope.get(REQUEST_CONTEXT)
        if call is None or call.operation is None or not call.operation.is_rate_limited:
            await self.app(scope, receive, send)
        else:
            await self.serve(call, scope, receive, send)

    async def serve(self, call: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and serve."""
        raise NotImplementedError

    async def consume(self, call: RequestContext, policy: QuotaPolicy, subject: str) -> None:
        """Take one unit, once a request."""
        if not call.has_consumed(policy.name):
            record_usage(call, [await self.limits.consume_async(policy, subject)])


class AnonymousRateLimit(RateLimitMiddleware):
    """Around security: counts by address what comes without a good credential.

    Where none is wanted, each request; elsewhere those whose credential turns out to be no good.
    """

    async def serve(self, call: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
        """Count before an open operation, and after a refused credential."""
        address = get_rate_limit_address((scope.get("client") or ("",))[0])
        if call.operation is not None and call.operation.is_public:
            await self.consume(call, self.limits.policies.address, address)
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except (OAuthProblem, Unauthenticated):
            await self.consume(call, self.limits.policies.address, address)
            raise


class CallerRateLimit(RateLimitMiddleware):
    """Behind security, before the body is read: counts by the key or account that the credential names."""

    async def serve(self, call: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and serve."""
        claims: dict[str, Any] | None = scope["extensions"].get("connexion_context", {}).get("token_info")
        policies = self.limits.policies
        if claims is not None and "api_key_id" in claims:
            await self.consume(call, policies.key, claims["api_key_id"])
        elif claims is not None:
            await self.consume(call, policies.account, str(claims["sub"]))
        await self.app(scope, receive, send)
