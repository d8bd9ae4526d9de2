"""The limits at the door, around and behind security: for who shows no good credential, and for who does.

What is answered without an operation (unknown paths, wrong methods) costs next to nothing and is not counted.
"""

from __future__ import annotations

from typing import Any

from connexion.exceptions import OAuthProblem
from starlette.types import ASGIApp, Receive, Scope, Send

from db.errors import Unauthenticated
from handlers.contract.call import CALL, Call
from handlers.limiting import note
from studio.limits.addresses import counted_address
from studio.limits.limits import Limits
from studio.limits.policies import Policy


class _Door:
    """Counts requests to limited operations in its way of doing so."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises RateLimited."""
        call: Call | None = scope.get(CALL)
        if call is None or call.operation is None or not call.operation.is_limited:
            await self.app(scope, receive, send)
        else:
            await self.serve(call, scope, receive, send)

    async def serve(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and serve."""
        raise NotImplementedError

    async def count(self, call: Call, policy: Policy, subject: str) -> None:
        """Take one unit, once a request."""
        if not call.is_counted_by(policy.name):
            note(call, [await self.limits.spend_on_loop(policy, subject)])


class StrangersDoor(_Door):
    """Around security: counts by address what comes without a good credential.

    Where none is wanted, each request; elsewhere those whose credential turns out to be no good.
    """

    async def serve(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Count before an open operation, and after a refused credential."""
        address = counted_address((scope.get("client") or ("",))[0])
        if call.operation is not None and call.operation.is_open:
            await self.count(call, self.limits.policies.address, address)
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except (OAuthProblem, Unauthenticated):
            await self.count(call, self.limits.policies.address, address)
            raise


class CallersDoor(_Door):
    """Behind security, before the body is read: counts by the key or account that the credential names."""

    async def serve(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and serve."""
        claims: dict[str, Any] | None = scope["extensions"].get("connexion_context", {}).get("token_info")
        policies = self.limits.policies
        if claims is not None and "api_key_id" in claims:
            await self.count(call, policies.key, claims["api_key_id"])
        elif claims is not None:
            await self.count(call, policies.account, str(claims["sub"]))
        await self.app(scope, receive, send)
