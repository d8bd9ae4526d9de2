"""Handlers of the mini contract without a token, among them one that breaks it in the way it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import abort
from sqlalchemy.exc import OperationalError

from db.errors import InUse, NotFound, PermissionDenied
from handlers.answers import Answer, found_file
from tests.contract.mini.widgets import WIDGET


def put_raw(body: Any) -> Answer:
    content = body.read()
    return Answer(200, {"size": len(content), "start": content[:4].hex()})


def sign_in(body: dict[str, Any]) -> Answer:
    return Answer(200, body)


def get_file() -> Answer:
    return found_file(Path(__file__), "text/plain; charset=utf-8", etag="one")


def misbehave(how: str) -> Answer:
    good = {"X-Count": "3"}
    answers = {
        "well": Answer(200, WIDGET, good),
        "status": Answer(202, WIDGET, good),
        "media-type": Answer(200, WIDGET, good, "application/vnd.other+json"),
        "body": Answer(200, {**WIDGET, "name": ""}, good),
        "extra": Answer(200, {**WIDGET, "color": "red"}, good),
        "write-only": Answer(200, {**WIDGET, "secret": "s"}, good),
        "exclusive-bound": Answer(200, {**WIDGET, "price": 0}, good),
        "null": Answer(200, {**WIDGET, "name": None}, good),
        "not-a-number": Answer(200, {**WIDGET, "name": float("nan")}, good),
        "unserialisable": Answer(200, {**WIDGET, "name": object()}, good),
        "uuid": Answer(200, {**WIDGET, "id": "{01990000-5eed-7000-8000-000400000001}"}, good),
        "header-missing": Answer(200, WIDGET),
        "header-value": Answer(200, WIDGET, {"X-Count": "zero"}),
        "body-on-204": Answer(204, WIDGET),
        "bytes": Answer(200, b"not json", good),
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
