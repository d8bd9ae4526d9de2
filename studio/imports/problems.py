"""The problems of import files and of their rows, as results store them.

They have the members of a problem document (RFC 9457) except `type`, which has the URL of the server. Knows
no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from db.errors import DomainError, NotFound

MAX_ERRORS = 20
_MAX_DETAIL = 2_000
_TITLES = {
    400: "Bad Request",
    404: "Not Found",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    500: "Internal Server Error",
}

StoredProblem = dict[str, Any]
FindViolations = Callable[[str, Any], list[dict[str, Any]]]
"""Returns how a value violates a schema of the contract, which it gets by name, as problems list it."""


class ImportFileError(Exception):
    """The file cannot be imported at all. `problem` says why."""

    def __init__(self, problem: StoredProblem) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


def build_problem(
    status: int, code: str, detail: str, errors: Sequence[dict[str, Any]] = ()
) -> StoredProblem:
    """Return a problem with at most `MAX_ERRORS` violations of the contract."""
    return {
        "title": _TITLES[status],
        "status": status,
        "detail": detail.replace("\0", "\N{REPLACEMENT CHARACTER}")[:_MAX_DETAIL],
        "code": code,
        "errors": list(errors[:MAX_ERRORS]),
    }


def describe_error(error: DomainError, detail: str | None = None) -> StoredProblem:
    """Return the problem of a domain error."""
    return build_problem(404 if isinstance(error, NotFound) else 409, error.code, detail or error.detail)


def describe_violations(errors: Sequence[dict[str, Any]]) -> StoredProblem:
    """Return the problem of a row that breaks the contract."""
    names = ", ".join(dict.fromkeys(f"`{error['loc'][1]}`" for error in errors if len(error["loc"]) > 1))
    detail = "The row does not match the contract"
    return build_problem(422, "invalid_request", f"{detail}: {names}" if names else detail, errors)


def describe_violation(name: str, message: str, kind: str = "invalid") -> dict[str, Any]:
    """Return a violation at a property of a row, as problem documents have it."""
    escaped = name.replace("~", "~0").replace("/", "~1")
    return {"loc": ["body", name[:200]], "msg": message, "type": kind, "pointer": f"/{escaped}"[:1_000]}


FILE_MISSING = build_problem(404, "not_found", "The file of the import does not exist any more")
INTERNAL_ERROR = build_problem(500, "internal_error", "The import could not be completed")
