"""Serve the operations whose handler is a read: caller, permission, read, response validation.

This module knows no operation by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from anyio import to_thread
from flask import Response

from db.caller import current_organization, first_grant
from db.errors import DomainError, NotFound, Unauthenticated
from db.libpq.reader import MAX_EVENT_LOOP_BYTES
from db.libpq.statements import Fetched, Query, Row
from db.queries.api_keys import touch_last_used
from db.rls.session_role import ANONYMOUS, role_query
from handlers.common.reads import Reading, Step
from handlers.common.responses import EncodedResponse
from handlers.contract.errors import TookTooLong
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.admission.rate_limits import (
    due_limits,
    guest_limits,
    organization_limits,
    record_usage,
)
from handlers.pipeline.audit import DENIALS, AuditRecorder
from handlers.pipeline.auth import CallerReading, find_last_use, read_caller
from handlers.pipeline.middleware.observability import request_caller_context
from handlers.pipeline.policies import ServedOperation
from handlers.pipeline.reads.callers import KnownCaller, KnownCallers
from handlers.pipeline.request_context import RequestContext
from handlers.pipeline.responding import describe_rejection, require_access, respond
from studio.infrastructure.fair_slots import FairSlots, current_requester
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.limits import NamedLimit


class _CallerChangedError(Exception):
    """The caller is not the one that the read was made for."""


class ReadEndpoint:
    """One operation whose handler is a read.

    Args:
        operation: The operation.
        handler: The read.
        database: Runs queries on the event loop (`Database.fetch`), and opens transactions in threads.
        callers: The callers of earlier requests.
        limits: The rate limiter, which counts the organization.
        slots: The slots of the connections.
        seconds: How long a request takes at most.
        audit_recorder: Records denials; None for an application without an audit log.
        finish: Returns the response for what the read returns.
    """

    def __init__(
        self,
        operation: ServedOperation,
        handler: Callable[..., Reading[Any]],
        database: Any,
        callers: KnownCallers,
        limits: RateLimiter,
        slots: FairSlots,
        seconds: float,
        audit_recorder: AuditRecorder | None,
        finish: Callable[[ServedOperation, RequestContext, Any], EncodedResponse] = respond,
    ) -> None:
        self._operation, self._handler, self._database = operation, handler, database
        self._callers, self._limits, self._slots, self._seconds = callers, limits, slots, seconds
        self._audit_recorder, self._finish = audit_recorder, finish
        self.__name__ = operation.operation_id

    def __call__(self, **_path_values: Any) -> Response:
        """Fail: Flask and Connexion need a view for each operation, and never call this one."""
        raise RuntimeError(f"{self.__name__} is served on the event loop")

    async def serve(self, context: RequestContext) -> EncodedResponse:
        """Return the response to a request.

        Raises:
            TookTooLong: There was none in time.
        """
        try:
            async with asyncio.timeout(self._seconds):
                requester = current_requester()
                if not self._slots.try_take(requester) and not await self._slots.take(
                    requester, self._seconds
                ):
                    raise TookTooLong(Limit.DATABASE_CONNECTIONS)
                try:
                    return await self._read(context)
                finally:
                    self._slots.release(requester)
        except TimeoutError:
            raise TookTooLong(Limit.REQUEST_TIME) from None
        except DomainError as error:
            describe_rejection(self._operation, context, error)
            raise

    async def _read(self, context: RequestContext) -> EncodedResponse:
        claims = context.claims
        try:
            if self._operation.is_public:
                return await self._run(context, partial(self._fetch, [role_query(ANONYMOUS)]))
            if claims is None:
                raise Unauthenticated()
            reading = read_caller(claims)
            while True:
                known = self._callers.find(claims) or await self._load(claims, reading)
                try:
                    with suppress(_CallerChangedError):  # which is known now
                        return await self._read_as(context, claims, reading, known)
                except NotFound:
                    if not self._operation.responses.declares(404):
                        # The account may have been deleted between two queries, as for `Endpoint`.
                        await self._load(claims, reading)
                    raise
        except DENIALS as error:
            if self._audit_recorder is not None:
                await to_thread.run_sync(self._record_denial, self._audit_recorder, context, error)
            raise

    async def _fetch(self, before: Sequence[Query], step: Step) -> Fetched:
        fetched: Fetched = await self._database.fetch([*before, *step.queries], step.is_snapshot)
        return Fetched(fetched.rows[len(before) :], fetched.text_bytes)

    async def _load(self, claims: dict[str, Any], reading: CallerReading) -> KnownCaller:
        """Return the caller of a credential that is not known yet."""
        fetched: Fetched = await self._database.fetch([reading.query])
        return self._remember(claims, reading, fetched.rows[0])

    def _remember(self, claims: dict[str, Any], reading: CallerReading, rows: Sequence[Row]) -> KnownCaller:
        row = rows[0] if rows else None
        try:
            known = KnownCaller(row, reading.parse(row))
        except DomainError:
            self._callers.forget(claims)
            raise
        self._callers.remember(claims, known)
        return known

    async def _read_as(
        self, context: RequestContext, claims: dict[str, Any], reading: CallerReading, known: KnownCaller
    ) -> EncodedResponse:
        """Return the response for a caller.

        Raises:
            _CallerChangedError: The credential has another caller now.
        """
        caller = context.caller = known.caller
        before = (
            [reading.query] if reading.sets_role else [reading.query, role_query(caller.to_session_role())]
        )

        async def fetch(step: Step) -> Fetched:
            fetched: Fetched = await self._database.fetch([*before, *step.queries], step.is_snapshot)
            rows = fetched.rows[0]
            if rows != [known.row] and self._remember(claims, reading, rows).caller != caller:
                raise _CallerChangedError
            if (last_use := find_last_use(claims, rows[0])) is not None:
                await to_thread.run_sync(self._touch, *last_use)
            return Fetched(fetched.rows[len(before) :], fetched.text_bytes)

        policies = self._limits.policies
        try:
            await self._consume(context, guest_limits(policies, caller))
            require_access(self._operation, context, caller)
            named = context.organization_id or context.arguments.get("organization_id")
            await self._consume(context, organization_limits(policies, caller, named))
        except DomainError:
            # Reject the caller of this moment only, and as what the credential is now.
            await fetch(Step(()))
            raise
        with request_caller_context(caller, self._operation.permission):
            try:
                return await self._run(context, fetch)
            finally:
                context.organization_id = current_organization()
                # The row that the path names has told which organization it is.
                used = first_grant() if first_grant() in caller.roles else current_organization()
                await self._consume(context, organization_limits(policies, caller, used))

    async def _run(
        self, context: RequestContext, fetch: Callable[[Step], Awaitable[Fetched]]
    ) -> EncodedResponse:
        """Run the read, whose queries `fetch` sends."""
        reading = self._handler(**context.arguments)
        fetched: Fetched | None = None
        try:
            while isinstance(result := await self._advance(context, reading, fetched), Step):
                fetched = await fetch(result)
        except DomainError:
            if fetched is None:
                # The caller may have changed.
                await fetch(Step(()))
            raise
        if fetched is None:
            await fetch(Step(()))
        return result

    async def _advance(
        self, context: RequestContext, reading: Reading[Any], fetched: Fetched | None
    ) -> Step | EncodedResponse:
        """Return the next queries of a read, or its response."""

        def advance() -> Step | EncodedResponse:
            try:
                # Before the first queries there are no rows to send.
                return next(reading) if fetched is None else reading.send(fetched.rows)
            except StopIteration as end:
                return self._finish(self._operation, context, end.value)

        if fetched is not None and fetched.text_bytes > MAX_EVENT_LOOP_BYTES:
            return await to_thread.run_sync(advance)
        return advance()

    async def _consume(self, context: RequestContext, limits: Iterable[NamedLimit]) -> None:
        """Count the request against limits that have not counted it yet.

        Raises:
            RateLimited: One of them is exhausted.
        """
        if due := due_limits(context, limits):
            record_usage(context, await self._limits.consume_async(due))

    def _touch(self, key_id: UUID, last_used_at: datetime | None) -> None:
        with self._database.transaction(False):
            touch_last_used(key_id, last_used_at)

    def _record_denial(self, recorder: AuditRecorder, context: RequestContext, error: DomainError) -> None:
        with self._database.transaction(False):
            recorder.record_denial(context, error)
