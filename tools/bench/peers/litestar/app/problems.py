"""Error responses as problem details (RFC 9457): the contract requires them in place of Litestar's own.

msgspec stops at the first violation of a body. The contract requires all of them, so a body that was rejected
is checked again, field by field. Valid bodies are checked once.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import asyncpg
import msgspec
from litestar import Request, Response
from litestar.enums import ParamType
from litestar.exceptions import HTTPException, ValidationException

from app.settings import PUBLIC_URL

CODES = {
    401: "invalid_token",
    403: "not_enough_permissions",
    404: "not_found",
    409: "sku_taken",
    412: "precondition_failed",
    422: "invalid_request",
}
Violation = dict[str, Any]


class ProductRequest(Request[Any, Any, Any]):
    """A request that keeps its body for the check of a rejected one."""

    async def body(self) -> bytes:
        body = await super().body()
        self.state.body = body
        return body


def problem(status: int, detail: Any) -> Response[dict[str, Any]]:
    code = CODES.get(status, "error")
    content = {
        "type": f"{PUBLIC_URL}/api/v1/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Response(content, status_code=status, media_type="application/problem+json")


def violation(place: str, name: str, message: str, kind: str = "invalid") -> Violation:
    return {"loc": [place, name], "msg": message, "type": kind}


def find_violations(schema: type[msgspec.Struct], body: bytes) -> Iterator[Violation]:
    """Yield each violation of a rejected body."""
    try:
        values = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        yield {"loc": ["body"], "msg": str(error), "type": "invalid"}
        return
    fields = {each.name: each for each in msgspec.structs.fields(schema)}
    for name, field in fields.items():
        if name not in values:
            if field.required:
                yield violation("body", name, "Is required", "missing")
            continue
        try:
            msgspec.convert(values[name], field.type)
        except msgspec.ValidationError as error:
            yield violation("body", name, str(error))
    for name in values.keys() - fields.keys():
        yield violation("body", name, "Is not known", "extra_forbidden")


def handle_validation_exception(
    request: Request[Any, Any, Any], error: ValidationException
) -> Response[dict[str, Any]]:
    found: list[Violation] = []
    for each in error.extra or ():
        source = each.get("source", "body")
        if source == "body":
            schema = request.route_handler.parsed_data_field.annotation
            found += find_violations(schema, request.state.body)
        else:
            found.append(violation(ParamType(source).value, each["key"], each["message"]))
    return problem(422, found or error.detail)


def handle_http_exception(_request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    return problem(error.status_code, error.detail)


def handle_unique_violation(
    _request: Request[Any, Any, Any], _error: asyncpg.UniqueViolationError
) -> Response[dict[str, Any]]:
    return problem(409, "A product with this SKU exists already")


EXCEPTION_HANDLERS: Any = {
    ValidationException: handle_validation_exception,
    HTTPException: handle_http_exception,
    asyncpg.UniqueViolationError: handle_unique_violation,
}
