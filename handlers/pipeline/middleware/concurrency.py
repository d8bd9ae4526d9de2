"""Limit the requests that one account, or one address without a credential, runs at the same time.

A request is rejected on the event loop, before it gets a thread. Long polling and event streams are outside
of this layer, so a request that waits for a change is not counted.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from starlette.types import ASGIApp, Receive, Scope, Send

from db.errors import TooManyConcurrentRequests
from db.queries.api_keys import find_key_owner
from handlers.contract.errors import TookTooLong
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.fair_slots import set_current_subject
from studio.rate_limits.client_address import get_rate_limit_address
from studio.rate_limits.concurrency import ConcurrencyLimiter

logger = logging.getLogger(__name__)

MAX_CACHED_KEYS = 10_000


class KeyOwners:
    """The users of API keys, read in a thread of its own and cached: a key never gets another user.

    Args:
        transaction: opens a transaction, called with whether it writes.
        seconds: how long a request waits for the database.
    """

    def __init__(self, transaction: Any, seconds: float) -> None:
        self._transaction = transaction
        self._seconds = seconds
        self._user_ids: dict[str, str] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="key-owner")

    def clear(self) -> None:
        """Forget all keys: a mock that was reset gives their ids to others."""
        self._user_ids.clear()

    async def find_subject(self, api_key_id: str) -> str | None:
        """Return the subject of a key's user; None if the key was deleted.

        Raises:
            TookTooLong: the database did not answer in time.
        """
        user_id = self._user_ids.get(api_key_id)
        if user_id is None:
            reading = asyncio.get_running_loop().run_in_executor(self._reader, self._read, api_key_id)
            try:
                user_id = await asyncio.wait_for(reading, self._seconds)
            except TimeoutError:
                logger.warning("aborted the lookup of an API key's user after %s seconds", self._seconds)
                raise TookTooLong from None
        return None if user_id is None else account_subject(user_id)

    def _read(self, api_key_id: str) -> str | None:
        with self._transaction(False):
            owner = find_key_owner(UUID(api_key_id))
        if owner is None:
            return None
        if len(self._user_ids) >= MAX_CACHED_KEYS:
            self._user_ids.clear()
        self._user_ids[api_key_id] = str(owner.user_id)
        return str(owner.user_id)


class ConcurrencyLimit:
    """Reject a request while its account or address runs as many as it may; runs before the body is read."""

    def __init__(self, app: ASGIApp, *, limiter: ConcurrencyLimiter, key_owners: KeyOwners) -> None:
        self.app = app
        self.limiter = limiter
        self.key_owners = key_owners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            TooManyConcurrentRequests: the account or address is at its limit.
        """
        context: RequestContext | None = scope.get(REQUEST_CONTEXT)
        if context is None or context.operation is None or context.operation.is_probe:
            await self.app(scope, receive, send)
            return
        subject = await self._find_subject(scope)
        set_current_subject(subject)
        # A request that long polling sends again must not fail: it waits for its turn in `wsgi_bridge`.
        if context.is_repeated or not context.operation.is_rate_limited:
            await self.app(scope, receive, send)
            return
        if not self.limiter.try_start(subject):
            raise TooManyConcurrentRequests()
        try:
            await self.app(scope, receive, send)
        finally:
            self.limiter.finish(subject)

    async def _find_subject(self, scope: Scope) -> str:
        claims: dict[str, Any] | None = scope["extensions"].get("connexion_context", {}).get("token_info")
        if claims is not None and "sub" in claims:
            return account_subject(claims["sub"])
        subject = None if claims is None else await self.key_owners.find_subject(claims["api_key_id"])
        return subject or address_subject((scope.get("client") or ("",))[0])


def account_subject(user_id: object) -> str:
    """Return the subject of an account."""
    return f"account {user_id}"


def address_subject(peer: str) -> str:
    """Return the subject of a client without a credential."""
    return f"address {get_rate_limit_address(peer)}"
