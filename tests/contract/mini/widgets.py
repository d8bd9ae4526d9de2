"""Handlers of the mini contract: they answer what they got, so that a test sees what arrived."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from db.errors import NotFound
from handlers.answers import Answer, no_content
from handlers.permissions import Permission, requires

WIDGET = {"id": "01990000-5eed-7000-8000-000400000001", "name": "Lamp", "price": 3.5}


def told(value: Any) -> Any:
    """Return a value with the Python type of each part that JSON would hide."""
    if isinstance(value, dict):
        return {key: told(item) for key, item in value.items()}
    if isinstance(value, list):
        return [told(item) for item in value]
    if isinstance(value, (UUID, datetime, date)):
        return f"{type(value).__name__}:{value.isoformat() if not isinstance(value, UUID) else value}"
    return value


@requires(Permission.BRANDS_READ)
def list_widgets(limit: int, **listing: Any) -> Answer:
    return Answer(200, {"limit": limit, **told(listing)})


@requires(Permission.BRANDS_WRITE)
def create_widget(mode: str, body: dict[str, Any]) -> Answer:
    return Answer(201, {"mode": mode, "body": told(body)}, {"Location": "/api/v1/widgets/1"})


@requires(Permission.BRANDS_READ)
def get_my_widget() -> Answer:
    return Answer(200, {**WIDGET, "name": "mine"}, tagged=True)


@requires(Permission.BRANDS_READ)
def get_widget(widget_id: UUID) -> Answer:
    if str(widget_id) != WIDGET["id"]:
        raise NotFound()
    return Answer(200, {**WIDGET, "id": widget_id}, tagged=True)


@requires(Permission.BRANDS_WRITE)
def update_widget(widget_id: UUID, body: dict[str, Any]) -> Answer:
    return Answer(200, {"id": widget_id, "name": ",".join(sorted(body)), "price": None}, tagged=True)


@requires(Permission.GENERATION_MODELS_WRITE)
def delete_widget(widget_id: UUID) -> Answer:
    return no_content()


@requires(Permission.BRANDS_WRITE)
def add_photo(widget_id: UUID, body: dict[str, Any]) -> Answer:
    if "file" not in body:
        return Answer(200, body)
    file = body["file"]
    seen = {
        "name": file.filename,
        "type": file.content_type,
        "size": file.size,
        "start": file.file.read(4).hex(),
    }
    return Answer(200, {"file": seen, "kind": body["type"]})
