"""The view function of an operation: transaction, caller, permission, handler, response validation, commit.

Returning commits, raising rolls back; a response that violates the contract raises, so its changes are rolled
back. Slow work, such as decoding an image, runs before the transaction is opened. A request with an
Idempotency-Key acquires its lock in the transaction or, if slow work comes first, in a short one before it.
A request with a file is authorized twice: before its body is read, and in the transaction.
This module knows no operation by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from flask import Response, request
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from werkzeug.datastructures import Headers

from db.audit import ChangeTracker
from db.caller import Caller, current_organization, first_grant
from db.errors import (
    DomainError,
    GuestNotAllowed,
    InvalidToken,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from db.rls.session_role import ANONYMOUS, SYSTEM
from handlers.common.permissions import is_self_authenticating
from handlers.common.preconditions import matches_if_none_match
from handlers.common.responses import ApiResponse, EncodedResponse, compress, encode_json, strong_etag
from handlers.contract.errors import ResponseViolation, TookTooLong
from handlers.pipeline import idempotency
from handlers.pipeline.admission.attempt_limits import enforce_attempt_limit, find_attempt_limit
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.admission.lock_waits import LockWaits
from handlers.pipeline.admission.rate_limits import consume_guest_limit, consume_organization_limit
from handlers.pipeline.audit import AuditRecorder, insert_events
from handlers.pipeline.error_places import find_place
from handlers.pipeline.errors import record_problem
from handlers.pipeline.idempotency import IdempotentRequest
from handlers.pipeline.middleware.observability import request_caller_context
from handlers.pipeline.policies import ServedOperation
from handlers.pipeline.prechecks import LOADED, DecodingNeeded, StoringNeeded, find_precheck
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from handlers.pipeline.unknown_values import is_defect
from studio.rate_limits.limiter import RateLimiter

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Transaction = Callable[..., AbstractContextManager[Any]]
CallerLoader = Callable[[dict[str, Any]], Caller]

# A 304 repeats all other headers. Browsers replace the headers of their copy by those of the 304 (RFC 9111,
# section 4.3.4), so the default of a header that is missing here would replace the copy's own value.
_NOT_IN_304 = ("content-encoding", "content-length")


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
        # The system role only loads the caller; `_authorize_caller` then switches to the caller's role.
        self._session_role = (
            ANONYMOUS if operation.is_public and not is_self_authenticating(handler) else SYSTEM
        )
        self._writes = operation.method not in ("GET", "HEAD")
        # Flask and Connexion name views by this.
        self.__name__ = operation.operation_id

    def authorize(self, context: RequestContext) -> UUID | None:
        """Authorize a request without its body; return the account that a signed URL stands for.

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
        """Serve the running request; an exception rolls back and becomes a problem."""
        context: RequestContext = request.environ[REQUEST_CONTEXT]
        key = request.headers.get(idempotency.HEADER) if self._operation.accepts_idempotency_key else None
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
            self._describe(context, error)
            raise

    def _describe(self, context: RequestContext, error: Exception) -> None:
        if not isinstance(error, DomainError):
            return
        if error.value is not None:
            error.members |= find_place(context.arguments, error.value) or self._path_parameter(error)
        # A request that lacks a parameter, such as the organization of an API key, may have the permission.
        lacks_permission = isinstance(error, PermissionDenied) and "parameter" not in error.members
        if lacks_permission and self._operation.permission is not None:
            error.members["required_permission"] = self._operation.permission
            if context.caller is not None and context.caller.api_key_id is not None:
                error.members["required_scope"] = self._operation.permission

    def _path_parameter(self, error: DomainError) -> dict[str, str]:
        """Return the place of a missing row that the request does not name itself: the first in the path.

        A replay that is denied must look like a request that is denied (`IdempotentRequest.acquire`).
        """
        names = re.findall(r"\{(\w+)\}", self._operation.path)
        return {"parameter": names[0]} if names and isinstance(error, NotFound) else {}

    def _serve(
        self, context: RequestContext, idempotent_request: IdempotentRequest | None = None
    ) -> Response:
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
            encoded = self._respond(
                context, idempotency.call_handler(idempotent_request, self._handler, arguments)
            )
            self._record_success(context, tracker, idempotent_request, encoded)
            # Inside the transaction: whatever can fail must fail before the commit.
            response = _build_response(encoded)
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

    def _serve_idempotent(self, context: RequestContext, key: str) -> Response:
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
            self._describe(context, error)
            is_served_again = isinstance(error, (DecodingNeeded, StoringNeeded)) or context.awaits_lock_slot
            if idempotent_request.lock is not None and not is_served_again:
                idempotency.store_or_release(idempotent_request.lock, error, self._transaction)
            raise

    def _limit_lock_waits(self, context: RequestContext) -> AbstractContextManager[bool]:
        if not self._writes:
            return nullcontext(False)
        # A second attempt of a sign-in would count as one.
        return self._lock_waits.limit(context, is_repeatable=self._attempt_limit is None)

    def _replay(self, context: RequestContext, stored: EncodedResponse) -> Response:
        body = orjson.loads(stored.body or b"null")
        self._validate_response(context, stored, body)
        if stored.status > 399:
            record_problem(body["code"])
        return _build_response(stored)

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
            if caller.guest is not None:
                context.organization_id = caller.guest.organization_id
                consume_guest_limit(self._limits, context, caller.guest)
                self._require_guest_access(caller)
            if self._operation.is_superuser_only and not caller.is_superuser:
                raise PermissionDenied()
            # A key's scopes are checked before any row is read: handlers rely on every role's right to read,
            # which a key may lack.
            if caller.api_key_id is not None:
                context.organization_id = caller.key_organization_id
            if caller.api_key_id and not caller.has_permission(
                self._operation.permission, context.organization_id
            ):
                raise PermissionDenied()
            named = context.organization_id or context.arguments.get("organization_id")
            consume_organization_limit(self._limits, context, caller, named)
            with request_caller_context(caller, self._operation.permission):
                try:
                    yield tracker
                finally:
                    context.organization_id = current_organization()
                    # The row that the path names has told which organization it is. A rejection rolls back.
                    used = first_grant() if first_grant() in caller.roles else current_organization()
                    consume_organization_limit(self._limits, context, caller, used)

    def _require_guest_access(self, caller: Caller) -> None:
        """Raise an error unless the operation is for guests, and for the guests of this link.

        A link that an API key made can lack permissions that other guests have. Like the scopes of a key,
        they are checked before any row is read.
        """
        if self._operation.accepts_guest:
            if self._operation.permission not in caller.personal_permissions:
                raise PermissionDenied()
            return
        # Operations on accounts do not declare 403. They reject API keys in the same way.
        raise GuestNotAllowed() if self._operation.responses.declares(403) else InvalidToken()

    def _respond(self, context: RequestContext, response: ApiResponse) -> EncodedResponse:
        """Encode and validate the handler's response; turn it into a 304 if the client has a current copy."""
        headers = dict(response.headers)
        raw = self._encode(response)
        if response.with_etag and raw is not None:
            headers["ETag"] = strong_etag(raw)
        if response.temporary_file is not None:
            context.files_to_close.append(response.temporary_file)
        value = response.body
        status, media_type = response.status, response.media_type
        if isinstance(value, Path):
            headers["Content-Length"] = str(value.stat().st_size)
            context.file = value if request.method != "HEAD" else None
        if status == 200 and self._is_not_modified(headers):
            status, raw, value, context.file = 304, None, None, None
            headers = {name: text for name, text in headers.items() if name.lower() not in _NOT_IN_304}
        encoded = EncodedResponse(status, media_type, headers, raw)
        self._validate_response(context, encoded, value)
        context.watched = response.watched
        return compress(encoded) if response.may_compress else encoded

    def _encode(self, response: ApiResponse) -> bytes | None:
        """Return the bytes of the body, None if there is no body or it is a file."""
        if response.compressed_body is not None:
            return response.compressed_body
        if response.body is None or isinstance(response.body, Path):
            return None
        if isinstance(response.body, bytes):
            return response.body
        try:
            return encode_json(response.body)
        except (orjson.JSONEncodeError, TypeError) as error:
            raise ResponseViolation(
                self._operation.operation_id, "encoding", f"the body cannot be encoded: {error}"
            ) from error

    def _is_not_modified(self, headers: dict[str, str]) -> bool:
        return (
            not self._writes
            and self._operation.responses.declares(304)
            and matches_if_none_match(request.headers.get("If-None-Match"), headers.get("ETag"))
        )

    def _validate_response(self, context: RequestContext, encoded: EncodedResponse, value: Any) -> None:
        headers = {name.lower(): text for name, text in encoded.headers.items()}
        # Including the headers that `response_validation` adds to every response.
        mismatch = self._operation.responses.find_mismatch(
            encoded.status, encoded.media_type, context.merge_headers(headers), value, encoded.body
        )
        if mismatch is not None and is_defect(self._operation.operation_id, mismatch):
            message = f"returned {encoded.status}: {mismatch}"
            raise ResponseViolation(self._operation.operation_id, mismatch.kind, message)


class _FinalResponse(Response):
    """A response whose headers are sent as they are: they are valid, and Werkzeug would only copy them."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return the headers."""
        return self.headers


def _build_response(encoded: EncodedResponse) -> Response:
    response = _FinalResponse(
        encoded.body or b"", encoded.status, encoded.headers, content_type=encoded.media_type
    )
    if encoded.status in (204, 304):
        del response.headers["Content-Type"]
        del response.headers["Content-Length"]
    elif encoded.body is None and "Content-Length" in encoded.headers:
        # A file: the bridge streams it, and Werkzeug has set the length of the empty body.
        response.headers["Content-Length"] = encoded.headers["Content-Length"]
    return response
