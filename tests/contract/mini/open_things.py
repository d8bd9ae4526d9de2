"""Handlers of the mini contract without a token, among them one that breaks it in the way it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import abort
from sqlalchemy.exc import OperationalError

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
    good = {"X-Count": "3"}
    answers = {
        "well": ApiResponse(200, WIDGET, good),
        "status": ApiResponse(202, WIDGET, good),
        "media-type": ApiResponse(200, WIDGET, good, "application/vnd.other+json"),
        "body": ApiResponse(200, {**WIDGET, "name": ""}, good),
        "extra": ApiResponse(200, {**WIDGET, "color": "red"}, good),
        "write-only": ApiResponse(200, {**WIDGET, "secret": "s"}, good),
        "exclusive-bound": ApiResponse(200, {**WIDGET, "price": 0}, good),
        "null": ApiResponse(200, {**WIDGET, "name": None}, good),
        "not-a-number": ApiResponse(200, {**WIDGET, "name": float("nan")}, good),
        "unserialisable": ApiResponse(200, {**WIDGET, "name": object()}, good),
        "uuid": ApiResponse(200, {**WIDGET, "id": "{01990000-5eed-7000-8000-000400000001}"}, good),
        "header-missing": ApiResponse(200, WIDGET),
        "header-value": ApiResponse(200, WIDGET, {"X-Count": "zero"}),
        "body-on-204": ApiResponse(204, WIDGET),
        "bytes": ApiResponse(200, b"not json", good),
    }
    raised = {
        "conflict": InUse(),
        "undocumented-problem": NotFound(),
        "undocumented-403": PermissionDenied(),
        "database-away": OperationalError("SELECT 1", {}, Exception("connection refused at 10.1.2.3")),
        "missing-table": OperationalError("SELECT 1", {}, Exception("no such table: secrets")),
        "crash": RuntimeError("the password is hunter2"),
    }
    if how == "abort":
        abort(418)
    if how in raised:
        raise raised[how]
    return answers[how]
