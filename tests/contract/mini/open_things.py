"""Public handlers of the mini contract. `misbehave` breaks the contract in the requested way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import abort
from sqlalchemy.exc import OperationalError, ProgrammingError

from db.errors import InUse, NotFound, PermissionDenied
from handlers.common.responses import ApiResponse, file_response
from tests.contract.mini.widgets import WIDGET


def put_raw(body: Any) -> ApiResponse:
    content = body.read()
    return ApiResponse(200, {"size": len(content), "start": content[:4].hex()})


def sign_in(body: dict[str, Any]) -> ApiResponse:
    return ApiResponse(200, body)


def get_file() -> ApiResponse:
    return file_response(Path(__file__), "text/plain; charset=utf-8", etag="one")


def misbehave(how: str) -> ApiResponse:
    headers = {"X-Count": "3"}
    responses = {
        "well": ApiResponse(200, WIDGET, headers),
        "status": ApiResponse(202, WIDGET, headers),
        "media-type": ApiResponse(200, WIDGET, headers, "application/vnd.other+json"),
        "body": ApiResponse(200, {**WIDGET, "name": ""}, headers),
        "extra": ApiResponse(200, {**WIDGET, "color": "red"}, headers),
        "write-only": ApiResponse(200, {**WIDGET, "secret": "s"}, headers),
        "exclusive-bound": ApiResponse(200, {**WIDGET, "price": 0}, headers),
        "null": ApiResponse(200, {**WIDGET, "name": None}, headers),
        "not-a-number": ApiResponse(200, {**WIDGET, "name": float("nan")}, headers),
        "unserializable": ApiResponse(200, {**WIDGET, "name": object()}, headers),
        "uuid": ApiResponse(200, {**WIDGET, "id": "{01990000-5eed-7000-8000-000400000001}"}, headers),
        "header-missing": ApiResponse(200, WIDGET),
        "header-value": ApiResponse(200, WIDGET, {"X-Count": "zero"}),
        "body-on-204": ApiResponse(204, WIDGET),
        "bytes": ApiResponse(200, b"not json", headers),
    }
    errors = {
        "conflict": InUse(),
        "undocumented-problem": NotFound(),
        "undocumented-403": PermissionDenied(),
        "database-away": OperationalError("SELECT 1", {}, Exception("connection refused at 10.1.2.3")),
        "missing-table": ProgrammingError("SELECT 1", {}, Exception('relation "secrets" does not exist')),
        "crash": RuntimeError("the password is hunter2"),
    }
    if how == "abort":
        abort(418)
    if how in errors:
        raise errors[how]
    return responses[how]
