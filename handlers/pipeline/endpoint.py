"""The view function of an operation: transaction, caller, permission, handler, response validation, commit.

Returning commits, raising rolls back; a response that violates the contract raises, so its changes are rolled
back. Slow work, such as decoding an image, runs before the transaction is opened. A request with an
Idempotency-Key acquires its lock in the transaction or, if slow work comes first, in a short one before it.
A request with a file is authorized twice: before its body is read, and in the transaction.
This module knows no operation by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import orjson
from flask import Response, request
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from werkzeug.datastructures import Headers

from db.audit import ChangeTracker
from db.caller import Caller, current_organization, first_grant
from db.errors import (
    DomainError,
    NotFound,
    Unauthenticated,
)
from db.event_loop_session import SessionNeeded
from db.rls.session_role import ANONYMOUS, SYSTEM
from handlers.common.context import current_request
from handlers.common.permissions import is_self_authenticating
from handlers.common.responses import ApiResponse, EncodedResponse
from handlers.contract.errors import TookTooLong
from handlers.pipeline import idempotency
from handlers.pipeline.admission.attempt_limits import enforce_attempt_limit, find_attempt_limit
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.admission.lock_waits import LockWaits
from handlers.pipeline.admission.rate_limits import (
    due_limits,
    guest_limits,
    organization_limits,
    record_usage,
)
from handlers.pipeline.audit import AuditRecorder, insert_events
from handlers.pipeline.errors import record_problem
from handlers.pipeline.idempotency import IdempotentRequest
from handlers.pipeline.middleware.observability import request_caller_context
from handlers.pipeline.policies import ServedOperation
from handlers.pipeline.prechecks import LOADED, DecodingNeeded, StoringNeeded, find_precheck
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from handlers.pipeline.responding import describe_rejection, require_access, respond, validate_response
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.limits import NamedLimit

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Transaction = Callable[..., AbstractContextManager[Any]]
CallerLoader = Callable[[dict[str, Any]], Caller]


_SERVED_AGAIN = (DecodingNeeded, StoringNeeded, SessionNeeded)


class Endpoint:
    """The view function of one operation.

    Args:
        operation: the operation.
        handler: the function that implements it.
        transaction: opens a transaction, called with whether it writes and, optionally, the session role.
        load_caller: loads the caller from the claims of the credential.
        limits: the rate limiter, which counts the organization.
        lock_waits: limits how many request threads wait for row locks.
        audit_recorder: records audit events; None for an application without an audit log.
        build: builds what `serve` returns, before the commit: whatever can fail must fail there.
    """

    def __init__(
        self,
        operation: ServedOperation,
        handler: Callable[..., ApiResponse],
        transaction: Transaction,
        load_caller: CallerLoader,
        limits: RateLimiter,
        lock_waits: LockWaits,
        audit_recorder: AuditRecorder | None = None,
        build: Callable[[EncodedResponse], Any] | None = None,
    ) -> None:
        self._operation = operation
        self._handler = handler
        self._precheck = find_precheck(handler)
        self._attempt_limit = find_attempt_limit(handler)
        self._transaction = transaction
        self._load_caller = load_caller
        self._limits = limits
        self._lock_waits = lock_waits
        self._audit_recorder = audit_recorder
        self._build = build
        # The system role only loads the caller; `_authorize_caller` then switches to the caller's role.
        self._session_role = (
            ANONYMOUS if operation.is_public and not is_self_authenticating(handler) else SYSTEM
        )
        self._writes = operation.writes
        # Flask and Connexion name views by this.
        self.__name__ = operation.operation_id

    def authorize(self, context: RequestContext) -> UUID | None:
        """Authorize a request before its file is received; return the account that a signed URL stands for.

        Raises:
            Unauthenticated, PermissionDenied, NotFound, Conflict: as the handler would raise them.
        """
        authorize = None if self._precheck is None else self._precheck.authorize
        with (
            self._describe_rejection(context),
            self._transaction(False, self._session_role),
            self._authorize_caller(context),
        ):
            return None if authorize is None else authorize(**context.arguments)

    def __call__(self, **_path_values: Any) -> Response:
        """Serve the running request of Flask; an exception rolls back and becomes a problem."""
        return cast("Response", self.serve(request.environ[REQUEST_CONTEXT]))

    def call(self, **arguments: Any) -> ApiResponse:
        """Call the handler."""
        return self._handler(**arguments)

    def needs_slow_work(self, context: RequestContext) -> bool:
        """Return whether files are received, decoded or fetched before the handler is called."""
        return self._precheck is not None and self._precheck.is_needed(context.arguments)

    def serve(self, context: RequestContext) -> Any:
        """Return the response to a request; an exception has rolled back what it did."""
        accepts_key = self._operation.accepts_idempotency_key
        key = current_request().find_header(idempotency.FIELD) if accepts_key else None
        try:
            with (
                self._describe_rejection(context),
                enforce_attempt_limit(self._attempt_limit, context, self._transaction),
            ):
                response = self._serve(context) if key is None else self._serve_idempotent(context, key)
        except Exception as error:
            if context.caller is not None and self._may_be_of_deleted_account(error):
                # Raises InvalidToken if the account was deleted since the request loaded it.
                with self._transaction(False):
                    self._load_caller(context.claims or {})
            raise
        context.is_validated = True
        return response

    def _may_be_of_deleted_account(self, error: Exception) -> bool:
        """Return whether an error can be the effect of rows that another transaction deleted meanwhile.

        A foreign key that fails is a DomainError with its cause (`db.session`). A missing row is NotFound,
        which an operation without a resource does not declare, or one of several errors of SQLAlchemy.
        """
        if isinstance(error, NotFound) and not self._operation.responses.declares(404):
            return True
        if isinstance(error, DomainError):
            return isinstance(error.__cause__, IntegrityError)
        return isinstance(error, SQLAlchemyError) and not isinstance(error, OperationalError)

    @contextmanager
    def _describe_rejection(self, context: RequestContext) -> Iterator[None]:
        """Add the members that name the place and the permission to a domain error of the block."""
        try:
            yield
        except DomainError as error:
            describe_rejection(self._operation, context, error)
            raise

    def _serve(self, context: RequestContext, idempotent_request: IdempotentRequest | None = None) -> Any:
        if context.failure is not None:
            raise context.failure
        arguments = self._prepare(context, idempotent_request)
        with (
            self._transaction(self._writes, self._session_role),
            self._limit_lock_waits(context) as may_repeat,
            self._authorize_caller(context) as tracker,
        ):
            stored = None if idempotent_request is None else idempotent_request.acquire(context)
            if stored is not None:
                return self._replay(context, stored)
            if may_repeat:
                # Handlers change the body that they get.
                arguments = deepcopy(arguments)
            handled = idempotency.call_handler(idempotent_request, self._handler, arguments)
            encoded = respond(self._operation, context, handled)
            self._record_success(context, tracker, idempotent_request, encoded)
            response = self._finish(encoded)
            if not context.try_complete():
                raise TookTooLong(Limit.REQUEST_TIME)
            return response

    def _record_success(
        self,
        context: RequestContext,
        tracker: ChangeTracker | None,
        idempotent_request: IdempotentRequest | None,
        encoded: EncodedResponse,
    ) -> None:
        """Store the response of an idempotency key and the audit event, with one statement if there are both.

        Raises:
            IdempotencyKeyInProgress: another request has taken over the key.
        """
        lock = None if idempotent_request is None else idempotent_request.lock
        events = []
        if tracker is not None and self._audit_recorder is not None:
            events = self._audit_recorder.build_events(context, tracker, encoded)
        if lock is not None:
            idempotency.store_encoded_response(lock, encoded, events)
        else:
            insert_events(events)

    def _prepare(
        self, context: RequestContext, idempotent_request: IdempotentRequest | None
    ) -> dict[str, Any]:
        """Return the handler's arguments after its slow work.

        Raises:
            DecodingNeeded, StoringNeeded: the request is served again when its file is decoded or stored.
        """
        if context.prepared_arguments is not None:
            return context.prepared_arguments
        arguments, precheck = context.arguments, self._precheck
        if precheck is None or not precheck.is_needed(arguments):
            return arguments
        # Authorize before the slow work, in a transaction that ends before it: it holds a connection.
        with self._transaction(False, self._session_role), self._authorize_caller(context):
            result = idempotency.call_handler(idempotent_request, precheck.check, arguments)
        if precheck.keeps_result:
            arguments = {**arguments, LOADED: result}
        context.prepared_arguments = precheck.prepare(arguments)
        return context.prepared_arguments

    def _serve_idempotent(self, context: RequestContext, key: str) -> Any:
        """Serve the first request with this key; replay its response to the others."""
        idempotent_request = context.idempotent_request
        if idempotent_request is None:
            idempotent_request = IdempotentRequest(self._operation.operation_id, key)
        precheck = self._precheck
        try:
            if (
                context.idempotent_request is None
                and precheck is not None
                and precheck.is_needed(context.arguments)
            ):
                # No transaction is open during the slow work, so a stored lock keeps other requests from it.
                with (
                    self._transaction(True),
                    self._limit_lock_waits(context),
                    self._authorize_caller(context),
                ):
                    stored = idempotent_request.acquire(context, persist=True)
                if stored is not None:
                    return self._replay(context, stored)
                context.idempotent_request = idempotent_request
            return self._serve(context, idempotent_request)
        except Exception as error:
            describe_rejection(self._operation, context, error)
            is_served_again = isinstance(error, _SERVED_AGAIN) or context.awaits_lock_slot
            if idempotent_request.lock is not None and not is_served_again:
                idempotency.store_or_release(idempotent_request.lock, error, self._transaction)
            raise

    def _limit_lock_waits(self, context: RequestContext) -> AbstractContextManager[bool]:
        if not self._writes:
            return nullcontext(False)
        # A second attempt of a sign-in would count as one.
        return self._lock_waits.limit(context, is_repeatable=self._attempt_limit is None)

    def _finish(self, encoded: EncodedResponse) -> Any:
        return _build_response(encoded) if self._build is None else self._build(encoded)

    def _replay(self, context: RequestContext, stored: EncodedResponse) -> Any:
        body = orjson.loads(stored.body or b"null")
        validate_response(self._operation, context, stored, body)
        if stored.status > 399:
            record_problem(body["code"])
        return self._finish(stored)

    @contextmanager
    def _authorize_caller(self, context: RequestContext) -> Iterator[ChangeTracker | None]:
        """Act as the caller within the block, and record its changes and denials in the audit log.

        Raises:
            Unauthenticated: the request has no credential.
            PermissionDenied: the caller can never call this operation, whatever the row.
            RateLimited: the limit of the organization, or of its guests, is exhausted.
        """
        tracking = nullcontext() if self._audit_recorder is None else self._audit_recorder.track(context)
        with tracking as tracker:
            if self._operation.is_public:
                yield tracker
                return
            if context.claims is None:
                raise Unauthenticated()
            context.caller = caller = self._load_caller(context.claims)
            self._consume(context, guest_limits(self._limits.policies, caller))
            require_access(self._operation, context, caller)
            named = context.organization_id or context.arguments.get("organization_id")
            self._consume(context, organization_limits(self._limits.policies, caller, named))
            with request_caller_context(caller, self._operation.permission):
                try:
                    yield tracker
                finally:
                    context.organization_id = current_organization()
                    # The row that the path names has told which organization it is. A rejection rolls back.
                    used = first_grant() if first_grant() in caller.roles else current_organization()
                    self._consume(context, organization_limits(self._limits.policies, caller, used))

    def _consume(self, context: RequestContext, limits: Iterable[NamedLimit]) -> None:
        """Count the request against limits that have not counted it yet.

        Raises:
            RateLimited: one of them is exhausted.
        """
        if due := due_limits(context, limits):
            record_usage(context, self._limits.consume(due))


class _FinalResponse(Response):
    """A response whose headers are sent as they are: they are valid, and Werkzeug would only copy them."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return the headers."""
        return self.headers


def _build_response(encoded: EncodedResponse) -> Response:
    response = _FinalResponse(
        encoded.body or b"", encoded.status, encoded.headers, content_type=encoded.media_type
    )
    if encoded.status in (204, 303, 304):
        del response.headers["Content-Type"]
        del response.headers["Content-Length"]
    elif encoded.body is None and "Content-Length" in encoded.headers:
        # A file: the bridge streams it, and Werkzeug has set the length of the empty body.
        response.headers["Content-Length"] = encoded.headers["Content-Length"]
    return response
