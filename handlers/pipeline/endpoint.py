"""One request in its thread: transaction, caller, permission, handler, check of the answer, commit.

Returning commits, raising rolls back. An answer that breaks the contract raises, so nothing of it is kept.
What takes its time, such as decoding a picture, is done before that transaction. A request with an
Idempotency-Key takes its turn within it, or, where something comes before it, in a short one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from flask import Response, request
from werkzeug.datastructures import Headers

from db.audit import ChangeTracker
from db.errors import PermissionDenied, Unauthenticated
from db.rls.session_role import ANONYMOUS, SYSTEM
from db.tenancy import Caller, current_organization
from handlers.common.attempt_limits import enforce_attempt_limit, find_attempt_limit
from handlers.common.permissions import is_self_authenticating
from handlers.common.prechecks import find_precheck
from handlers.common.preconditions import matches_if_none_match
from handlers.common.responses import ApiResponse, EncodedResponse, encode_json, strong_etag
from handlers.contract.errors import ResponseViolation, TookTooLong
from handlers.contract.operations import Operation
from handlers.pipeline import idempotency
from handlers.pipeline.audit import AuditRecorder
from handlers.pipeline.idempotency import IdempotentRequest
from handlers.pipeline.middleware.observability import request_caller_context
from handlers.pipeline.middleware.rate_limits import consume_organization_limit
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.rate_limits.limiter import RateLimiter

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Transaction = Callable[..., AbstractContextManager[Any]]
CallerLoader = Callable[[dict[str, Any]], Caller]

# What describes a body that is not sent. All else a 304 says again: browsers put its headers in the place of
# those of their copy (RFC 9111, 4.3.4), and one left out would be that of answers with none of their own.
_NOT_IN_304 = ("content-encoding", "content-length")


class Endpoint:
    """The view function of one operation. What it needs of the database is handed in."""

    def __init__(
        self,
        operation: Operation,
        handler: Callable[..., ApiResponse],
        transaction: Transaction,
        load_caller: CallerLoader,
        limits: RateLimiter,
        audit_recorder: AuditRecorder | None = None,
    ) -> None:
        self._operation = operation
        self._handler = handler
        self._precheck = find_precheck(handler)
        self._attempt_limit = find_attempt_limit(handler)
        self._transaction = transaction
        self._load_caller = load_caller
        self._limits = limits
        self._audit_recorder = audit_recorder
        # Of a request with a token, only who is calling is read as the system; then it is the caller's.
        self._session_role = (
            ANONYMOUS if operation.is_public and not is_self_authenticating(handler) else SYSTEM
        )
        self._writes = operation.method not in ("GET", "HEAD")
        # Flask and Connexion name views by this.
        self.__name__ = operation.operation_id

    def __call__(self, **_path_values: Any) -> Response:
        """Serve the request at hand; whatever is raised rolls back and becomes a problem."""
        call: RequestContext = request.environ[REQUEST_CONTEXT]
        key = request.headers.get(idempotency.HEADER) if self._operation.accepts_idempotency_key else None
        with enforce_attempt_limit(self._attempt_limit, call, self._transaction):
            response = self._serve(call) if key is None else self._serve_idempotent(call, key)
        call.is_validated = True
        return response

    def _serve(self, call: RequestContext, idempotent_request: IdempotentRequest | None = None) -> Response:
        arguments, before = call.arguments, self._precheck
        if before is not None and before.is_needed(arguments):
            with self._transaction(False, self._session_role), self._authorize_caller(call):
                idempotency.call_handler(idempotent_request, before.check, arguments)
            arguments = before.prepare(arguments)
        with self._transaction(self._writes, self._session_role), self._authorize_caller(call) as trail:
            first = None if idempotent_request is None else idempotent_request.acquire(call)
            if first is not None:
                return self._replay(call, first)
            encoded = self._respond(
                call, idempotency.call_handler(idempotent_request, self._handler, arguments)
            )
            if idempotent_request is not None and idempotent_request.lock is not None:
                idempotency.store_encoded_response(idempotent_request.lock, encoded)
            if trail is not None and self._audit_recorder is not None:
                self._audit_recorder.record_success(call, trail, encoded)
            # Before the commit, as everything that may fail.
            response = _build_response(encoded)
            if not call.try_complete():
                raise TookTooLong
            return response

    def _serve_idempotent(self, call: RequestContext, key: str) -> Response:
        """Serve the first request with this key, and answer the others as it was answered."""
        once, before = IdempotentRequest(self._operation.operation_id, key), self._precheck
        try:
            if before is not None and before.is_needed(call.arguments):
                # While it prepares no transaction is open that would keep others from doing the same.
                with self._transaction(True), self._authorize_caller(call):
                    first = once.acquire(call, persist=True)
                if first is not None:
                    return self._replay(call, first)
            return self._serve(call, once)
        except Exception as error:
            if once.lock is not None:
                idempotency.store_or_release(once.lock, error, self._transaction)
            raise

    def _replay(self, call: RequestContext, first: EncodedResponse) -> Response:
        self._validate_response(call, first, orjson.loads(first.body or b"null"))
        return _build_response(first)

    @contextmanager
    def _authorize_caller(self, call: RequestContext) -> Iterator[ChangeTracker | None]:
        """Let the handler be the caller within the block; raise when the caller may never do this.

        What happens there is followed for the audit log, and a refusal written down.
        """
        watching = nullcontext() if self._audit_recorder is None else self._audit_recorder.track(call)
        with watching as trail:
            if self._operation.is_public:
                yield trail
                return
            if call.claims is None:
                raise Unauthenticated()
            call.caller = caller = self._load_caller(call.claims)
            if self._operation.is_superuser_only and not caller.is_superuser:
                raise PermissionDenied()
            # A key, before any row is looked for: many handlers count on every role's right to read.
            call.organization_id = caller.key_organization_id
            if caller.api_key_id and not caller.has_permission(
                self._operation.permission, call.organization_id
            ):
                raise PermissionDenied()
            count = partial(consume_organization_limit, self._limits, call)
            with request_caller_context(caller, self._operation.permission, count):
                try:
                    yield trail
                finally:
                    call.organization_id = current_organization()

    def _respond(self, call: RequestContext, response: ApiResponse) -> EncodedResponse:
        headers = dict(response.headers)
        raw = self._encode(response)
        if response.with_etag and raw is not None:
            headers["ETag"] = strong_etag(raw)
        value = response.body
        status, media_type = response.status, response.media_type
        if isinstance(value, Path):
            headers["Content-Length"] = str(value.stat().st_size)
            call.file = value if request.method != "HEAD" else None
        if status == 200 and self._is_not_modified(headers):
            status, raw, value, call.file = 304, None, None, None
            headers = {name: text for name, text in headers.items() if name.lower() not in _NOT_IN_304}
        encoded = EncodedResponse(status, media_type, headers, raw)
        self._validate_response(call, encoded, value)
        call.watched_generation = response.watched_generation
        return encoded

    def _encode(self, response: ApiResponse) -> bytes | None:
        """Return the bytes of the body as they are sent, None for no body and for files."""
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

    def _validate_response(self, call: RequestContext, encoded: EncodedResponse, value: Any) -> None:
        lowered = {name.lower(): text for name, text in encoded.headers.items()}
        # With what the envelope adds to every answer.
        violation = self._operation.responses.find_mismatch(
            encoded.status, encoded.media_type, call.merge_headers(lowered), value, encoded.body
        )
        if violation is not None:
            words = f"answered {encoded.status}: {violation}"
            raise ResponseViolation(self._operation.operation_id, violation.kind, words)


class _FinalResponse(Response):
    """An answer whose headers are sent as they are: they were checked, and Werkzeug would only copy them."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return them."""
        return self.headers


def _build_response(encoded: EncodedResponse) -> Response:
    response = _FinalResponse(
        encoded.body or b"", encoded.status, encoded.headers, content_type=encoded.media_type
    )
    if encoded.status in (204, 304):
        del response.headers["Content-Type"]
        del response.headers["Content-Length"]
    elif encoded.body is None and "Content-Length" in encoded.headers:
        # A file: the bridge streams it, so the length of the empty body is none.
        response.headers["Content-Length"] = encoded.headers["Content-Length"]
    return response
