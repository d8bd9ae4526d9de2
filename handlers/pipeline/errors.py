"""Refusals and failures of every layer become one shape here: a problem (RFC 9457); nothing else builds one.

Refused                     db/errors.py: what the house says no to
  Unauthenticated     401     not_authenticated, invalid_token, incorrect_credentials
  PermissionDenied    403     not_enough_permissions
  NotFound            404     not_found
  Conflict            409     one subclass and code per business rule
  Stale               412     precondition_failed
  TooLarge            413     too_large
  UnsupportedType     415     unsupported_media_type, not_an_image
  Unreadable          422     invalid_request, with one violation at body.file
  RateLimited         429     rate_limited, with the policy and Retry-After
RequestRefused              handlers/contract/errors.py: what the contract or HTTP itself does not allow
  Malformed           400     malformed_request
  UnknownPath         404     not_found
  MethodNotAllowed    405     method_not_allowed, with Allow
  NotAcceptable       406     not_acceptable
  BodyTooSlow         408     request_timeout
  BodyTooLarge        413     too_large
  WrongMediaType      415     unsupported_media_type
  Invalid             422     invalid_request, with every violation; idempotency_key_reused
  IdempotencyKeyInProgress 409 idempotency_key_in_progress, with Retry-After
  Unavailable         503     unavailable, with Retry-After
    TookTooLong       503     took_too_long, with Retry-After
ContractBroken        500     internal_error: an answer of ours is not what the contract says; a defect
OperationalError      503     unavailable: the database cannot be reached or is overloaded
StorageUnavailable    503     unavailable: the bucket of the pictures cannot be reached
anything else         500     internal_error: a defect, logged, never shown
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from connexion.exceptions import OAuthProblem, OAuthResponseProblem, OAuthScopeProblem, ProblemException
from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from db.errors import (
    Conflict,
    DomainError,
    InvalidToken,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    RateLimited,
    TooLarge,
    Unauthenticated,
    UnreadableImage,
    UnsupportedImageType,
)
from handlers.common.context import current_request_id
from handlers.common.responses import encode_json
from handlers.contract.errors import RequestError, ResponseViolation, ValidationFailed, Violation
from studio.media.storage import StorageUnavailable
from studio.telemetry.metrics import count_contract_defect, count_rate_limited

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "5"

_STATUS_BY_ERROR: dict[type[DomainError], int] = {
    Unauthenticated: 401,
    PermissionDenied: 403,
    NotFound: 404,
    Conflict: 409,
    PreconditionFailed: 412,
    TooLarge: 413,
    UnsupportedImageType: 415,
}

# RFC 9110's phrases; Python's own differ from version to version.
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


@dataclass(frozen=True)
class Problem:
    """A problem before it is bytes. `detail` is text, for 422 the list of violations; `more` are members."""

    status: int
    code: str
    detail: str | list[dict[str, Any]]
    headers: dict[str, str] = field(default_factory=dict)
    extensions: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self, public_url: str) -> bytes:
        """Return the body; `public_url` is where the page that explains the code is served."""
        members = {
            "type": f"{public_url}/api/v1/problems/{self.code}",
            "title": reason_phrase(self.status),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extensions,
            "request_id": current_request_id(),
        }
        return encode_json(members)


def reason_phrase(status: int) -> str:
    """Return the words that HTTP has for a status (RFC 9110, 15)."""
    return _REASON_PHRASES.get(status) or HTTPStatus(status).phrase


def internal_error() -> Problem:
    """Return the neutral problem for a defect of ours."""
    return Problem(500, "internal_error", "Internal server error")


def build_problem(error: Exception) -> Problem:
    """Return the problem for any exception; a 5xx is logged with its cause, of which nothing is shown."""
    if isinstance(error, DomainError):
        return _domain_problem(error)
    if isinstance(error, RequestError):
        detail = (
            [violation.to_dict() for violation in error.violations]
            if isinstance(error, ValidationFailed)
            else error.detail
        )
        return Problem(error.status, error.code, detail, dict(error.headers))
    if isinstance(error, OAuthScopeProblem):
        return _domain_problem(PermissionDenied())
    if isinstance(error, OAuthResponseProblem):
        return _domain_problem(InvalidToken())
    if isinstance(error, OAuthProblem):
        return _domain_problem(Unauthenticated())
    if isinstance(error, ResponseViolation):
        logger.error("contract broken: %s", error)
        count_contract_defect(error.operation_id, error.kind)
        return internal_error()
    if isinstance(error, StorageUnavailable) or _is_database_unavailable(error):
        logger.error("a service that requests need does not answer: %s", error)
        headers = {"Retry-After": RETRY_AFTER_SECONDS}
        return Problem(503, "unavailable", "The service is temporarily unavailable", headers)
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    if isinstance(error, (HTTPException, ProblemException)) and status in _CODE_BY_STATUS and status < 500:
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        return Problem(status, _CODE_BY_STATUS[status], reason_phrase(status), headers)
    logger.error("a request failed by a defect", exc_info=error)
    return internal_error()


def _domain_problem(error: DomainError) -> Problem:
    if isinstance(error, UnreadableImage):
        violation = Violation(("body", "file"), error.detail, error.code)
        return Problem(422, "invalid_request", [violation.to_dict()])
    if isinstance(error, RateLimited):
        count_rate_limited(error.policy)
        headers, more = {"Retry-After": str(error.retry_after)}, {"policy": error.policy}
        return Problem(429, error.code, error.detail, headers, more)
    status = next((status for kind, status in _STATUS_BY_ERROR.items() if isinstance(error, kind)), 409)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Problem(status, error.code, error.detail, headers)


def _is_database_unavailable(error: Exception) -> bool:
    """Return whether the database is unreachable, locked or out of connections."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if not isinstance(error, (OperationalError, InterfaceError, PoolTimeout)):
        return False
    # SQLite reports missing tables and wrong SQL under the same class.
    return not str(getattr(error, "orig", "")).startswith(("no such", "near "))


def build_error_handler(
    public_url: str,
) -> Callable[[ConnexionRequest, Exception], Coroutine[Any, Any, ConnexionResponse]]:
    """Return the one error handler that the application registers for every exception."""

    async def answer_with_problem(_request: ConnexionRequest, error: Exception) -> ConnexionResponse:
        problem = build_problem(error)
        return ConnexionResponse(
            status_code=problem.status,
            mimetype=MEDIA_TYPE,
            content_type=MEDIA_TYPE,
            body=problem.to_bytes(public_url),
            headers={**problem.headers, "Cache-Control": "no-store"},
        )

    return answer_with_problem
