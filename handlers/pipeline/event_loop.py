"""Serve operations on the event loop: reads, and plain writes in two or three messages to PostgreSQL.

A plain write runs like any other, in the same `Endpoint`, but in a greenlet of the event loop and with an
`EventLoopSession`. A request that needs more is rolled back and passed on to a thread.
This module knows no operation by name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy.util import await_only, greenlet_spawn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db.caller import Caller
from db.event_loop_session import EventLoopSession, SessionNeeded
from db.rls.session_role import role_query
from db.session import current_session, record_role
from handlers.common.responses import EncodedResponse
from handlers.contract.errors import TookTooLong
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.admission.lock_waits import LockWaits
from handlers.pipeline.auth import find_last_use, read_caller
from handlers.pipeline.endpoint import Endpoint
from handlers.pipeline.reads.callers import KnownCaller, KnownCallers
from handlers.pipeline.reads.endpoint import ReadEndpoint
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.infrastructure.fair_slots import FairSlots, current_requester
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.limits import LimitUsage, NamedLimit

logger = logging.getLogger(__name__)

Messages = tuple[Message, Message]


class EventLoopLimits(RateLimiter):
    """The rate limiter for code in a greenlet.

    Args:
        limiter: The rate limiter.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        # The same policies, store and clock, also after one of them is replaced.
        self.__dict__ = limiter.__dict__

    def consume(self, limits: Sequence[NamedLimit]) -> list[LimitUsage]:
        """Take one unit of each limit, until one is exhausted."""
        return await_only(self.consume_async(limits))


class EventLoopLockWaits(LockWaits):
    """Lets requests repeat: a transaction on the event loop waits for a row lock only briefly."""

    def __init__(self) -> None:
        super().__init__(threads=1)

    @contextmanager
    def limit(self, context: RequestContext, is_repeatable: bool) -> Iterator[bool]:
        """Yield whether the request may be served again."""
        yield is_repeatable


class EventLoopCallers:
    """Loads callers in the first message of the handler.

    Args:
        known: The callers of earlier requests.
    """

    def __init__(self, known: KnownCallers) -> None:
        self._known = known

    def load(self, claims: dict[str, Any]) -> Caller:
        """Return the caller of a credential: if it is known, the next message compares it.

        Raises:
            InvalidToken: As `handlers.pipeline.auth.load_caller`.
            SessionNeeded: The use of an API key must be recorded.
        """
        reading, session = read_caller(claims), cast("EventLoopSession", current_session())
        known = self._known.find(claims)
        if known is None:
            rows = session.run([reading.query])[0].rows
            row = rows[0] if rows else None
            known = KnownCaller(row, reading.parse(row))
            self._known.remember(claims, known)
        else:
            session.expect(*reading.query, [cast("Any", known.row)])
        if known.row is not None and find_last_use(claims, known.row) is not None:
            raise SessionNeeded
        role = known.caller.to_session_role()
        if not reading.sets_role:
            session.run_later(*role_query(role))
        record_role(role)
        return known.caller


class PlainWrite:
    """One operation whose handler is a plain write.

    Args:
        in_thread: Its endpoint, which serves what needs more.
        on_event_loop: The endpoint with the transactions of the event loop.
        callers: The callers of earlier requests.
        slots: The slots of the connections.
        seconds: How long a request takes at most.
    """

    def __init__(
        self,
        in_thread: Endpoint,
        on_event_loop: Endpoint,
        callers: KnownCallers,
        slots: FairSlots,
        seconds: float,
    ) -> None:
        self._in_thread, self._endpoint = in_thread, on_event_loop
        self._callers, self._slots, self._seconds = callers, slots, seconds

    async def serve(self, context: RequestContext) -> Messages | None:
        """Return the messages of the response to a request, None if a thread must serve it.

        Raises:
            TookTooLong: There was none in time.
        """
        requester = current_requester()
        if self._in_thread.needs_slow_work(context):
            return None
        if not self._slots.try_take(requester) and not await self._slots.take(requester, self._seconds):
            raise TookTooLong(Limit.DATABASE_CONNECTIONS)
        serving = asyncio.create_task(greenlet_spawn(self._endpoint.serve, context))
        # Not when the request ends: a commit is not interrupted.
        serving.add_done_callback(lambda _: self._slots.release(requester))
        await asyncio.wait((serving,), timeout=self._seconds)
        if not serving.done() and context.try_complete():
            serving.cancel()
            raise TookTooLong(Limit.REQUEST_TIME)
        try:
            return cast("Messages", await serving)
        except SessionNeeded as error:
            logger.debug("a thread serves the request: %r", error.__cause__ or error)
            self._callers.forget(context.claims or {})
            context.reopen()
            return None


class EventLoopOperations:
    """Serve the operations that need no thread, and pass on all others.

    Args:
        app: The application that serves the others.
        endpoints: The endpoints of reads and of plain writes by operationId.
    """

    def __init__(self, app: ASGIApp, *, endpoints: Mapping[str, ReadEndpoint | PlainWrite]) -> None:
        self.app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        context: RequestContext | None = scope.get(REQUEST_CONTEXT)
        operation = None if context is None else context.operation
        endpoint = None if operation is None else self._endpoints.get(operation.operation_id)
        served = None if context is None or endpoint is None else await endpoint.serve(context)
        if context is None or served is None:
            await self.app(scope, receive, send)
            return
        context.is_validated = True
        for message in build_messages(served) if isinstance(served, EncodedResponse) else served:
            await send(message)


def build_messages(encoded: EncodedResponse) -> Messages:
    """Return the ASGI messages of a response."""
    headers = list(encoded.headers.items())
    body = encoded.body or b""
    if encoded.status not in (204, 304):
        headers += [("Content-Type", encoded.media_type), ("Content-Length", str(len(body)))]
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    start = {"type": "http.response.start", "status": encoded.status, "headers": raw}
    return start, {"type": "http.response.body", "body": body}
