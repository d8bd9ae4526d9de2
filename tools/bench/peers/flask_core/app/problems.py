"""Error responses as problem details (RFC 9457)."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, current_app
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

CODES = {
    401: "invalid_token",
    403: "not_enough_permissions",
    404: "not_found",
    409: "sku_taken",
    412: "precondition_failed",
    422: "invalid_request",
}


class Invalid(Exception):
    """A request is invalid; `violations` has all errors."""

    def __init__(self, violations: list[dict[str, Any]]) -> None:
        super().__init__()
        self.violations = violations


def problem(status: int, detail: Any) -> tuple[Response, int]:
    code = CODES.get(status, "error")
    response = current_app.json.response(
        type=f"{current_app.config['PUBLIC_URL']}/api/v1/problems/{code}",
        title=HTTP_STATUS_CODES[status],
        status=status,
        detail=detail,
        code=code,
    )
    response.mimetype = "application/problem+json"
    return response, status


def init_app(app: Flask) -> None:
    @app.errorhandler(HTTPException)
    def handle_http_exception(error: HTTPException) -> tuple[Response, int]:
        return problem(error.code or 500, error.description)

    @app.errorhandler(Invalid)
    def handle_invalid(error: Invalid) -> tuple[Response, int]:
        return problem(422, error.violations)

    @app.errorhandler(IntegrityError)
    def handle_integrity_error(_error: IntegrityError) -> tuple[Response, int]:
        return problem(409, "A product with this SKU exists already")
