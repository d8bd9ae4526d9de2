"""Handlers of the mini contract. They return their arguments, so that tests see what arrived."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from db.errors import NotFound
from handlers.common.permissions import Permission, requires
from handlers.common.responses import ApiResponse, no_content

WIDGET = {"id": "01990000-5eed-7000-8000-000400000001", "name": "Lamp", "price": 3.5}


def describe_value(value: Any) -> Any:
    """Return a value with the names of Python types that JSON cannot show."""
    if isinstance(value, dict):
        return {key: describe_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [describe_value(item) for item in value]
    if isinstance(value, (UUID, datetime, date)):
        return f"{type(value).__name__}:{value.isoformat() if not isinstance(value, UUID) else value}"
    return value


@requires(Permission.BRANDS_READ)
def list_widgets(limit: int, **params: Any) -> ApiResponse:
    return ApiResponse(200, {"limit": limit, **describe_value(params)})


@requires(Permission.BRANDS_WRITE)
def create_widget(mode: str, body: dict[str, Any]) -> ApiResponse:
    return ApiResponse(201, {"mode": mode, "body": describe_value(body)}, {"Location": "/api/v1/widgets/1"})


@requires(Permission.BRANDS_READ)
def get_my_widget() -> ApiResponse:
    return ApiResponse(200, {**WIDGET, "name": "mine"}, with_etag=True)


@requires(Permission.BRANDS_READ)
def get_widget(widget_id: UUID) -> ApiResponse:
    if str(widget_id) != WIDGET["id"]:
        raise NotFound()
    return ApiResponse(200, {**WIDGET, "id": widget_id}, with_etag=True)


@requires(Permission.BRANDS_WRITE)
def update_widget(widget_id: UUID, body: dict[str, Any]) -> ApiResponse:
    return ApiResponse(200, {"id": widget_id, "name": ",".join(sorted(body)), "price": None}, with_etag=True)


@requires(Permission.GENERATION_MODELS_WRITE)
def delete_widget(widget_id: UUID) -> ApiResponse:
    return no_content()


@requires(Permission.BRANDS_WRITE)
def add_photo(widget_id: UUID, body: dict[str, Any]) -> ApiResponse:
    if "file" not in body:
        return ApiResponse(200, body)
    file = body["file"]
    description = {
        "name": file.filename,
        "type": file.content_type,
        "size": file.size,
        "start": file.file.read(4).hex(),
    }
    return ApiResponse(200, {"file": description, "kind": body["type"]})
