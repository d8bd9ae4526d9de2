"""Count requests against the rate limits: per address, per caller, per organization and for its guests.

Each limit counts a request once, even if several layers ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

from connexion.exceptions import OAuthProblem
from flask import request
from starlette.types import ASGIApp, Receive, Scope, Send

from db.base import Owned
from db.caller import Caller
from db.errors import RateLimited, Unauthenticated
from handlers.common.context import current_services
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.rate_limits.client_address import get_rate_limit_address
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.limits import LimitUsage, NamedLimit, QuotaPolicies, QuotaPolicy


def record_usage(context: RequestContext, limit_usages: Iterable[LimitUsage]) -> None:
    """Add the usage of rate limits to the response headers.

    Raises:
        RateLimited: one of the limits is exhausted; the ones after it are not recorded.
    """
    for usage in limit_usages:
        context.limit_usages.append(usage)
        if not usage.allowed:
            raise RateLimited(usage.policy.name, usage.reset_seconds)


def organization_limits(
    policies: QuotaPolicies, caller: Caller, organization_id: UUID | None
) -> list[NamedLimit]:
    """Return the limit that counts a request of a member for an organization.

    Only members count: others must not use up the limit of an organization whose id they know. Guests count
    in `guest_limits`.
    """
    return (
        [NamedLimit(policies.organization, str(organization_id))] if organization_id in caller.roles else []
    )


def guest_limits(policies: QuotaPolicies, caller: Caller) -> list[NamedLimit]:
    """Return the limits that count a request of a guest: of all guests of the organization, and of itself.

    Guests of personal shootings count for the creator of their link.
    """
    guest = caller.guest
    if guest is None:
        return []
    # First, so that guests beyond their half use nothing of the limit that members need.
    limits = [NamedLimit(policies.guests, str(guest.organization_id or guest.created_by_id))]
    if guest.organization_id is not None:
        limits.append(NamedLimit(policies.organization, str(guest.organization_id)))
    return limits


def due_limits(context: RequestContext, limits: Iterable[NamedLimit]) -> list[NamedLimit]:
    """Return the limits that have not counted the request yet."""
    operation = context.operation
    if operation is None or not operation.is_rate_limited:
        return []
    return [limit for limit in limits if not context.has_consumed(limit.policy.name)]


def consume_guest_session(link_id: UUID) -> None:
    """Count the session that a guest gets for a review link, per link and client address.

    Raises:
        RateLimited: the link was exchanged too often from this address.
    """
    rate_limiter = current_rate_limiter()
    name = f"{link_id} {client_address()}"
    usages = rate_limiter.consume([NamedLimit(rate_limiter.policies.guest_sessions, name)])
    record_usage(request.environ[REQUEST_CONTEXT], usages)


def current_rate_limiter() -> RateLimiter:
    """Return the rate limiter of the running application."""
    return current_services().rate_limiter


def client_address() -> str:
    """Return the address that the running request is counted under."""
    return get_rate_limit_address(cast(Any, request).remote_addr or "")


def consume_public_image(image: Owned) -> None:
    """Count a request without a credential for an image, for the tenant of the image.

    Raises:
        RateLimited: the images of the tenant were requested too often.
    """
    rate_limiter = current_rate_limiter()
    limit = NamedLimit(rate_limiter.policies.public_images, str(image.organization_id or image.owner_id))
    record_usage(request.environ[REQUEST_CONTEXT], rate_limiter.consume([limit]))


class RateLimitMiddleware:
    """Base of the two middlewares below, which differ in what they count."""

    def __init__(self, app: ASGIApp, *, limits: RateLimiter) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raise RateLimited if a limit is exhausted."""
        context: RequestContext | None = scope.get(REQUEST_CONTEXT)
        if context is None or context.operation is None or not context.operation.is_rate_limited:
            await self.app(scope, receive, send)
        else:
            await self.serve(context, scope, receive, send)

    async def serve(self, context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and serve a request to a rate limited operation."""
        raise NotImplementedError

    async def consume(self, context: RequestContext, policy: QuotaPolicy, name: str) -> None:
        """Consume one unit of a limit, unless it has already counted the request."""
        if due := due_limits(context, [NamedLimit(policy, name)]):
            record_usage(context, await self.limits.consume_async(due))


class AnonymousRateLimit(RateLimitMiddleware):
    """Count requests without a valid credential by address; runs before authentication.

    Public operations: each request. Other operations: requests whose credential is rejected.
    """

    async def serve(self, context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
        """Count before a public operation, and after a rejected credential."""
        address = get_rate_limit_address((scope.get("client") or ("",))[0])
        if context.operation is not None and context.operation.is_public:
            await self.consume(context, self.limits.policies.address, address)
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except (OAuthProblem, Unauthenticated):
            await self.consume(context, self.limits.policies.address, address)
            raise


class CallerRateLimit(RateLimitMiddleware):
    """Count requests by API key, session of a guest, or account.

    Runs after authentication and before the body is read.
    """

    async def serve(self, context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and serve a request."""
        claims: dict[str, Any] | None = scope["extensions"].get("connexion_context", {}).get("token_info")
        policies = self.limits.policies
        if claims is not None and "api_key_id" in claims:
            await self.consume(context, policies.key, claims["api_key_id"])
        elif claims is not None:
            # The subject of a guest's token is the link, which others use, too.
            name = claims["sid"] if "guest" in claims else claims["sub"]
            await self.consume(context, policies.account, str(name))
        await self.app(scope, receive, send)
