"""Turn the exceptions of every layer into problem documents (RFC 9457). No other module builds one.

DomainError                       db/errors.py: what the domain rejects
  Unauthenticated            401  not_authenticated, invalid_token, incorrect_credentials,
                                  invalid_webhook_signature, second_factor_required,
                                  incorrect_second_factor, challenge_ended
  PermissionDenied           403  not_enough_permissions, guest_not_allowed, api_key_not_allowed,
                                  second_factor_enrollment_required, provider_session_not_allowed,
                                  provider_sign_in_required, organization_suspended, invalid_signature
  NotFound                   404  not_found
  Conflict                   409  one subclass and code per business rule
  PreconditionFailed         412  precondition_failed
  TooLarge                   413  too_large
  UnsupportedImageType       415  unsupported_media_type, not_an_image
  UnreadableImage            422  unreadable_image, as one violation of invalid_request at body.file
  MailDisabled               503  mail_disabled, with Retry-After
  RateLimited                429  rate_limited, too_many_concurrent_requests; with the policy and Retry-After
RequestError                      handlers/contract/errors.py: what the contract or HTTP does not allow
  BadRequest                 400  malformed_request
    UnknownPreference        400  unknown_preference
  PathNotFound               404  not_found
  MethodNotAllowed           405  method_not_allowed, with Allow
  NotAcceptable              406  not_acceptable
  RequestTimeout             408  request_timeout
  OperationEnded             410  sunset, with the date and the replacement
  ContentTooLarge            413  too_large
  UnsupportedMediaType       415  unsupported_media_type
  RangeNotSatisfiable        416  range_not_satisfiable, with Content-Range
  ValidationFailed           422  invalid_request, with every violation
    IdempotencyKeyReused     422  idempotency_key_reused
  IdempotencyKeyInProgress   409  idempotency_key_in_progress, with Retry-After
  ServiceUnavailable         503  unavailable, with Retry-After
    ConnectionRejected       503  unavailable
    RowLocked                503  unavailable
    StoredResponseUnreadable 503  unavailable
    MockIsReset              503  unavailable
    TookTooLong              503  took_too_long
    TooManyBodyBytes         503  too_many_body_bytes
ResponseViolation            500  internal_error: a response does not match the contract; logged as a defect
OperationalError             503  unavailable: the database cannot be reached or is overloaded
StorageUnavailable           503  unavailable: the object storage cannot be reached
OSError                      503  unavailable: the disk is full or read-only, or too many files are open
any other exception          500  internal_error: logged as a defect, never shown

A test compares the list with the classes. A 429 and a 503 also name what rejected the request, for the log
and the metrics (`handlers/pipeline/admission/limits.py`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from anyio import to_thread
from connexion.exceptions import OAuthProblem, OAuthResponseProblem, OAuthScopeProblem, ProblemException
from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from db.engine import is_database_unavailable
from db.errors import (
    Conflict,
    DomainError,
    InvalidToken,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    RateLimited,
    TemporaryConflict,
    TooLarge,
    Unauthenticated,
    UnreadableImage,
    UnsupportedImageType,
)
from handlers.common.context import current_request_id
from handlers.common.responses import encode_json
from handlers.contract.errors import (
    RequestError,
    ResponseViolation,
    ServiceUnavailable,
    ValidationFailed,
    Violation,
)
from handlers.pipeline.admission.limits import Limit
from studio.infrastructure.storage import StorageUnavailable, is_storage_unavailable
from studio.infrastructure.telemetry.context import current_log_context
from studio.infrastructure.telemetry.metrics import count_contract_defect, count_rate_limited
from studio.mail.mailer import MailDisabled

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "5"
MAX_EVENT_LOOP_VIOLATIONS = 100
"""More violations are written in a thread: a thousand take 3 ms."""
REJECTION_SECONDS = 0.1
"""How long a 429 is delayed, so that a client that ignores `Retry-After` cannot send thousands a second."""
MAIL_RETRY_AFTER_SECONDS = "3600"
"""An operator has to change the settings of a server without e-mail."""

_STATUS_BY_ERROR: dict[type[DomainError], int] = {
    Unauthenticated: 401,
    PermissionDenied: 403,
    NotFound: 404,
    Conflict: 409,
    PreconditionFailed: 412,
    TooLarge: 413,
    UnsupportedImageType: 415,
}

# The phrases of RFC 9110: Python's own differ between versions.
_REASON_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}

_CODE_BY_STATUS = {
    400: "malformed_request",
    401: "not_authenticated",
    403: "not_enough_permissions",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_media_type",
    503: "unavailable",
}

_LIMIT_BY_SQLSTATE: dict[str | None, Limit] = {
    "40P01": Limit.ROW_LOCKED,  # deadlock_detected
    "53100": Limit.DISK,  # disk_full
    "53300": Limit.DATABASE_CONNECTIONS,  # too_many_connections
    "55P03": Limit.ROW_LOCKED,  # lock_not_available
    "57014": Limit.REQUEST_TIME,  # query_canceled, by statement_timeout
}


class TokenExpired(OAuthResponseProblem):
    """The access token was issued by this server and has expired: the client renews it."""


@dataclass(frozen=True)
class Problem:
    """A problem before it is encoded.

    `detail` is a text, or the list of violations of a 422; `extensions` are additional members (RFC 9457,
    section 3.2).
    """

    status: int
    code: str
    detail: str | list[dict[str, Any]]
    headers: dict[str, str] = field(default_factory=dict)
    extensions: dict[str, Any] = field(default_factory=dict)
    limit: Limit | None = None
    """What rejected the request, for the log and the metrics; None if the code says it already."""

    def to_bytes(self, public_url: str) -> bytes:
        """Return the body; `public_url` is the server that has the page of the problem type."""
        return encode_json(self.to_dict(public_url))

    def to_dict(self, public_url: str) -> dict[str, Any]:
        """Return the members of the body."""
        return {
            "type": f"{public_url}/api/v1/problems/{self.code}",
            "title": reason_phrase(self.status),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extensions,
            "request_id": current_request_id(),
        }


def reason_phrase(status: int) -> str:
    """Return the reason phrase of a status (RFC 9110, section 15)."""
    return _REASON_PHRASES.get(status) or HTTPStatus(status).phrase


def internal_error() -> Problem:
    """Return the problem for a defect of the server, which says nothing about its cause."""
    return Problem(500, "internal_error", "Internal server error")


def build_problem(error: Exception) -> Problem:
    """Return the problem for any exception; log the cause of a 500 and of most 503, which is not shown."""
    if isinstance(error, DomainError):
        return _domain_problem(error)
    if isinstance(error, RequestError):
        detail = (
            [violation.to_dict() for violation in error.violations]
            if isinstance(error, ValidationFailed)
            else error.detail
        )
        limit = Limit(error.limit) if isinstance(error, ServiceUnavailable) else None
        return Problem(error.status, error.code, detail, dict(error.headers), dict(error.members), limit)
    if isinstance(error, OAuthScopeProblem):
        return _domain_problem(PermissionDenied())
    if isinstance(error, TokenExpired):
        return _domain_problem(InvalidToken("The access token has expired"))
    if isinstance(error, OAuthResponseProblem):
        return _domain_problem(InvalidToken())
    if isinstance(error, OAuthProblem):
        return _domain_problem(Unauthenticated())
    if isinstance(error, ResponseViolation):
        logger.error("contract violation: %s", error)
        count_contract_defect(error.operation_id, error.kind)
        return internal_error()
    if is_storage_unavailable(error) or is_database_unavailable(error):
        logger.error("database or storage unavailable: %s", error)
        detail = "The service is temporarily unavailable"
        headers = {"Retry-After": RETRY_AFTER_SECONDS}
        return Problem(503, "unavailable", detail, headers, limit=_find_limit(error))
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    if isinstance(error, (HTTPException, ProblemException)) and status in _CODE_BY_STATUS and status < 500:
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        return Problem(status, _CODE_BY_STATUS[status], reason_phrase(status), headers)
    logger.error("unhandled exception in a request", exc_info=error)
    return internal_error()


def _domain_problem(error: DomainError) -> Problem:
    if isinstance(error, UnreadableImage):
        violation = Violation(("body", "file"), error.detail, error.code)
        return Problem(422, "invalid_request", [violation.to_dict()])
    if isinstance(error, RateLimited):
        count_rate_limited(error.policy)
        headers = {"Retry-After": str(error.retry_after)}
        return Problem(429, error.code, error.detail, headers, {"policy": error.policy}, Limit(error.limit))
    if isinstance(error, MailDisabled):
        headers = {"Retry-After": MAIL_RETRY_AFTER_SECONDS}
        return Problem(503, error.code, error.detail, headers, limit=Limit.MAIL)
    status = next((status for cls, status in _STATUS_BY_ERROR.items() if isinstance(error, cls)), 409)
    headers = {}
    if status == 401 or "required_permission" in error.members:
        headers["WWW-Authenticate"] = _challenge(error)
    if isinstance(error, TemporaryConflict):
        headers["Retry-After"] = str(error.retry_after)
    return Problem(status, error.code, error.detail, headers, error.members)


def _find_limit(error: Exception) -> Limit:
    """Return what a database or storage that is not available lacks."""
    if isinstance(error, DBAPIError):
        return _LIMIT_BY_SQLSTATE.get(getattr(error.orig, "sqlstate", None), Limit.DATABASE)
    if isinstance(error, PoolTimeout):
        return Limit.DATABASE_CONNECTIONS
    if not isinstance(error, OSError) or isinstance(error, StorageUnavailable):
        return Limit.STORAGE
    return Limit.OPEN_FILES if error.errno in (errno.EMFILE, errno.ENFILE) else Limit.DISK


def record_problem(code: str, limit: str | None = None) -> None:
    """Record the problem code of the running request's response, for its access log line and the metrics.

    Call it where the response is made, not where the error occurs: another response may replace it.
    """
    context = current_log_context()
    if context is not None:
        context.problem, context.limit = code, limit


def _challenge(error: DomainError) -> str:
    """Return the value of `WWW-Authenticate` (RFC 6750, section 3).

    A request without a credential gets no error attribute; its client may not know that it needs one.
    """
    if isinstance(error, InvalidToken):
        return f'Bearer error="invalid_token", error_description="{error.reason}"'
    if isinstance(error, PermissionDenied):
        return f'Bearer error="insufficient_scope", scope="{error.members["required_permission"]}"'
    return "Bearer"


def build_error_handler(
    public_url: str,
) -> Callable[[ConnexionRequest, Exception], Coroutine[Any, Any, ConnexionResponse]]:
    """Return the error handler that the application registers for every exception."""

    async def handle_error(_request: ConnexionRequest, error: Exception) -> ConnexionResponse:
        if isinstance(error, RateLimited):
            # The request holds no thread, no slot and no body here, only its connection.
            await asyncio.sleep(REJECTION_SECONDS)
        if isinstance(error, ValidationFailed) and len(error.violations) > MAX_EVENT_LOOP_VIOLATIONS:
            return await to_thread.run_sync(build_response, error)
        return build_response(error)

    def build_response(error: Exception) -> ConnexionResponse:
        problem = build_problem(error)
        record_problem(problem.code, problem.limit)
        return ConnexionResponse(
            status_code=problem.status,
            mimetype=MEDIA_TYPE,
            content_type=MEDIA_TYPE,
            body=problem.to_bytes(public_url),
            headers={**problem.headers, "Cache-Control": "no-store"},
        )

    return handle_error
