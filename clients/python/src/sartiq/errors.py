"""The errors of the client. All are subclasses of `SartiqError`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class SartiqError(Exception):
    """Base class of all errors of this package."""


class ConfigurationError(SartiqError):
    """The client cannot send the request: for example without credentials, or without an identifier."""


class APIConnectionError(SartiqError):
    """The server could not be reached, or the connection ended before the response did."""


class APITimeoutError(APIConnectionError):
    """The server did not respond in time."""


class InvalidResponseError(SartiqError):
    """The response does not match the contract. Its cause is the error of the validation."""


class WebhookVerificationError(SartiqError):
    """A webhook message has no valid signature, or is too old."""


class WaitTimeoutError(SartiqError):
    """The work did not end in time. It continues on the server: call `wait` again."""


class JobFailedError(SartiqError):
    """A generation, export or import ended without success.

    Attributes:
        resource: The generation, export or import with its status and the cause.
    """

    def __init__(self, message: str, resource: Any) -> None:
        super().__init__(message)
        self.resource = resource


@dataclass(frozen=True)
class Violation:
    """One value of a request that the contract does not allow."""

    loc: tuple[str | int, ...]
    """Where it is: `body`, `query`, `path` or `header`, then the path within."""
    message: str
    type: str
    pointer: str
    """JSON Pointer to the value."""

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.loc))}: {self.message}"


class APIError(SartiqError):
    """The server returned a problem (RFC 9457).

    Attributes:
        status: HTTP status.
        code: Stable code of the problem, for example `sku_taken`; empty if another server responded.
        detail: Explanation for people.
        violations: The invalid values, for a 422.
        request_id: Identifier of the request, which the server's log contains too.
        problem: The whole problem, for example with `conflicts_with` or `allowed_transitions`.
        headers: The headers of the response.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.headers = headers
        self.code = str(problem.get("code", ""))
        self.title = str(problem.get("title", ""))
        self.request_id = problem.get("request_id") or headers.get("x-request-id")
        self.pointer: str | None = problem.get("pointer")
        self.parameter: str | None = problem.get("parameter")
        detail = problem.get("detail", "")
        self.violations = tuple(read_violations(detail)) if isinstance(detail, list) else ()
        self.detail = "; ".join(map(str, self.violations)) if self.violations else str(detail)
        super().__init__(self._describe())

    def _describe(self) -> str:
        name = f"{self.status} {self.code or self.title}".strip()
        text = f"{name}: {self.detail}" if self.detail else name
        facts = [
            f"at {self.pointer}" if self.pointer else "",
            f"parameter {self.parameter}" if self.parameter else "",
            describe_way_out(self.problem),
            f"request {self.request_id}" if self.request_id else "",
        ]
        shown = ", ".join(fact for fact in facts if fact)
        return f"{text} ({shown})" if shown else text


class NotModifiedError(APIError):
    """304: the resource still has the version of `if_none_match`."""


class BadRequestError(APIError):
    """400: the request cannot be read."""


class AuthenticationError(APIError):
    """401: the credentials are missing, wrong or expired."""


class PermissionDeniedError(APIError):
    """403: the caller lacks a permission; `problem["required_permission"]` names it."""


class NotFoundError(APIError):
    """404: there is no such resource, or the caller cannot see it."""


class ConflictError(APIError):
    """409: the state of a resource prevents the request; see `code`."""


class PreconditionFailedError(APIError):
    """412: the resource has another version than `if_match`."""


class UnprocessableError(APIError):
    """422: values of the request are invalid; see `violations`."""


class RateLimitError(APIError):
    """429: too many requests, also after the last retry."""


class ServerError(APIError):
    """5xx: the server failed or is not available."""


BY_STATUS: Mapping[int, type[APIError]] = {
    304: NotModifiedError,
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionFailedError,
    422: UnprocessableError,
    429: RateLimitError,
}


def build_error(status: int, content: bytes, headers: Mapping[str, str]) -> APIError:
    """Return the error of a response. The page of a proxy, which is no problem, becomes its detail."""
    try:
        problem = json.loads(content) if content else {}
    except ValueError:
        problem = {"detail": content[:300].decode(errors="replace")}
    if not isinstance(problem, dict):
        problem = {"detail": str(problem)[:300]}
    error = BY_STATUS.get(status) or (ServerError if status >= 500 else APIError)
    return error(status, problem, headers)


def describe_way_out(problem: Mapping[str, Any]) -> str:
    """Return the permission that the caller lacks, or the values that the request may have; else nothing."""
    needed = problem.get("required_scope") or problem.get("required_permission")
    if needed:
        return f"needed: {needed}"
    allowed = problem.get("allowed_transitions") or problem.get("allowed_values")
    if isinstance(allowed, list) and allowed:
        return f"allowed: {', '.join(map(str, allowed))}"
    return ""


def read_violations(detail: list[Any]) -> list[Violation]:
    """Return the violations of a problem."""
    return [
        Violation(
            tuple(item.get("loc", ())), item.get("msg", ""), item.get("type", ""), item.get("pointer", "")
        )
        for item in detail
        if isinstance(item, dict)
    ]
