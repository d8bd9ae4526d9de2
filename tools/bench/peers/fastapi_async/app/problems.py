"""Error responses as problem details (RFC 9457): the contract requires them in place of FastAPI's own."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError

from app.config import settings

CODES = {
    401: "invalid_token",
    403: "not_enough_permissions",
    404: "not_found",
    409: "sku_taken",
    412: "precondition_failed",
    422: "invalid_request",
}


def problem(status_code: int, detail: Any) -> JSONResponse:
    code = CODES[status_code]
    content = {
        "type": f"{settings.public_url}/api/v1/problems/{code}",
        "title": HTTPStatus(status_code).phrase,
        "status": status_code,
        "detail": detail,
        "code": code,
    }
    return JSONResponse(content, status_code, media_type="application/problem+json")


def add_problem_handlers(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def handle_http_exception(_request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, error.detail)

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(
            422, [{name: each[name] for name in ("loc", "msg", "type")} for each in error.errors()]
        )

    @app.exception_handler(IntegrityError)
    async def handle_integrity_error(_request: Request, _error: IntegrityError) -> JSONResponse:
        return problem(409, "A product with this SKU exists already")
