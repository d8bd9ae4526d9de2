"""Decide who a request counts for, and limit the requests that an owner runs at the same time.

The owner is the account of the credential or of the signed URL, else the client's address. The account of
a guest is the creator of the review link. A deleted API key and a review link that has ended have no account.
This is the only place that decides it: threads, lock waits, decode slots, fetches, unfinished bodies and
image variants use its `Requester`.

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

from db.errors import TooManyConcurrentRequests, Unauthenticated
from db.queries.api_keys import find_key_owner
from handlers.contract.errors import TookTooLong
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.auth import find_guest_link
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.infrastructure.fair_slots import Requester, account_name, set_current_requester
from studio.rate_limits.client_address import get_rate_limit_address
from studio.rate_limits.concurrency import ConcurrencyLimiter
from studio.rate_limits.pacing import Pace

logger = logging.getLogger(__name__)

MAX_CACHED_CREDENTIALS = 10_000
PROBES_PER_SECOND = 20
"""Probes of one address that are answered at once."""
PROBE_DELAY_SECONDS = 0.25
"""The delay of further ones. They have no limit: a 429 would look like a failure of the server."""


class CredentialOwners:
    """The accounts behind API keys and review links, read in a thread of its own and cached.

    Neither ever gets another account, but both can end: forget the credential when it is rejected.

    Args:
        transaction: opens a transaction, called with whether it writes.
        seconds: how long a request waits for the database.
    """

    def __init__(self, transaction: Any, seconds: float) -> None:
        self._transaction = transaction
        self._seconds = seconds
        self._user_ids: dict[str, str] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="credential-owner")

    def clear(self) -> None:
        """Forget all credentials: a mock that was reset gives their ids to others."""
        self._user_ids.clear()

    def forget(self, claims: dict[str, Any]) -> None:
        """Forget a credential that was rejected."""
        self._user_ids.pop(_credential_id(claims), None)

    async def find_user_id(self, claims: dict[str, Any]) -> str | None:
        """Return the id of the account that a request with these claims counts for.

        It is None for a deleted API key and for a review link that has ended.

        Raises:
            TookTooLong: the database did not answer in time.
        """
        if "api_key_id" not in claims and "guest" not in claims:
            return str(claims["sub"])
        user_id = self._user_ids.get(_credential_id(claims))
        if user_id is None:
            reading = asyncio.get_running_loop().run_in_executor(self._reader, self._read, claims)
            try:
                user_id = await asyncio.wait_for(reading, self._seconds)
            except TimeoutError:
                logger.warning("aborted the lookup of a credential's account after %s seconds", self._seconds)
                raise TookTooLong(Limit.DATABASE) from None
        return user_id

    def _read(self, claims: dict[str, Any]) -> str | None:
        credential_id = _credential_id(claims)
        with self._transaction(False):
            if "guest" in claims:
                link = find_guest_link(UUID(credential_id))
                found = link and link.created_by_id
            else:
                owner = find_key_owner(UUID(credential_id))
                found = owner and owner.user_id
        if found is None:
            return None
        if len(self._user_ids) >= MAX_CACHED_CREDENTIALS:
            self._user_ids.clear()
        self._user_ids[credential_id] = str(found)
        return str(found)


class RequestOwner:
    """The owner of a running request, and its count in the limiter.

    Args:
        limiter: counts the requests of an owner.
        address: the address of the client, an owner itself.
        is_limited: whether the limiter counts the request.
    """

    def __init__(self, limiter: ConcurrencyLimiter, address: str, is_limited: bool) -> None:
        self._limiter, self._address, self._is_limited = limiter, address, is_limited
        self._counted: tuple[str, str | None] | None = None

    def assign(self, user_id: object | None, is_guest: bool = False) -> None:
        """Let the request count for an account from now on; for the client's address if it is None.

        Args:
            user_id: the id of the account.
            is_guest: whether a guest of the account sends the request. All of its guests together get half of
                its requests, so that they cannot lock it out.

        Raises:
            TooManyConcurrentRequests: the owner is at its limit, or the guests of the account are at theirs.
        """
        owner = self._address if user_id is None else account_name(user_id)
        counted = (owner, f"guests of {owner}" if is_guest and user_id is not None else None)
        if self._is_limited and counted != self._counted:
            if not self._limiter.try_start(*counted):
                raise TooManyConcurrentRequests()
            self.finish()
            self._counted = counted
        set_current_requester(Requester(owner, self._address))

    def finish(self) -> None:
        """End the count."""
        if self._counted is not None:
            self._limiter.finish(*self._counted)
            self._counted = None


class ConcurrencyLimit:
    """Reject a request while its owner runs as many as it may; runs before the body is read.

    Probes are not counted. An address that sends many of them gets each response later.
    """

    def __init__(self, app: ASGIApp, *, limiter: ConcurrencyLimiter, owners: CredentialOwners) -> None:
        self.app = app
        self.limiter = limiter
        self.owners = owners
        self.probe_pace = Pace(PROBES_PER_SECOND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            TooManyConcurrentRequests: the account or address is at its limit.
        """
        context: RequestContext | None = scope.get(REQUEST_CONTEXT)
        if context is None or context.operation is None:
            await self.app(scope, receive, send)
            return
        address = address_name((scope.get("client") or ("",))[0])
        if context.operation.is_probe:
            if self.probe_pace.is_too_fast(address):
                await asyncio.sleep(PROBE_DELAY_SECONDS)
            await self.app(scope, receive, send)
            return
        # A request that long polling sends again must not fail: it waits for its turn in `wsgi_bridge`.
        is_limited = context.operation.is_rate_limited and not context.is_repeated
        context.owner = RequestOwner(self.limiter, address, is_limited)
        claims: dict[str, Any] = scope["extensions"].get("connexion_context", {}).get("token_info") or {}
        user_id = await self.owners.find_user_id(claims) if claims else None
        context.owner.assign(user_id, is_guest="guest" in claims)
        try:
            await self.app(scope, receive, send)
        except Unauthenticated:
            # The account must not go on to pay for a key or a guest that it has revoked.
            if claims:
                self.owners.forget(claims)
            raise
        finally:
            context.owner.finish()


def _credential_id(claims: dict[str, Any]) -> str:
    """Return the id of the API key, the review link or the account that a credential stands for."""
    return str(claims["api_key_id"] if "api_key_id" in claims else claims["sub"])


def address_name(peer: str) -> str:
    """Return the name of a client address in a `Requester`."""
    return f"address {get_rate_limit_address(peer)}"
