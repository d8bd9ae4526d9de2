"""Serialize exports."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from marshmallow import fields

from db.models.exports import Export
from handlers.common.context import current_settings
from handlers.schemas.fields import IdentifiedSchema, OwnedSchema, Timestamp, Uuid, format_timestamp


class ExportSchema(OwnedSchema):
    """An export with its progress."""

    shooting_id = Uuid()
    name_template = fields.Raw()
    status = fields.Raw()
    progress = fields.Raw()
    attempts = fields.Raw()
    predictions_count = fields.Raw()
    file_size = fields.Raw()
    content_hash = fields.Raw()
    completed_at = Timestamp()
    expires_at = Timestamp()
    error = fields.Raw()
    destination_id = Uuid()
    delivery = fields.Function(lambda export: _describe_delivery(export))
    urls = fields.Function(lambda export: _build_urls(export))


class ExportFileDeliverySchema(IdentifiedSchema):
    """A file of an export with its delivery."""

    export_id = Uuid()
    file_name = fields.Raw()
    file_size = fields.Raw()
    status = fields.Raw()
    attempts = fields.Raw()
    last_status_code = fields.Raw()
    last_error = fields.Raw()
    delivered_at = Timestamp()


def _describe_delivery(export: Export) -> dict[str, Any] | None:
    if export.delivery_status is None:
        return None
    return {
        "status": export.delivery_status,
        "failed_attempts": export.delivery_attempts,
        "next_attempt_at": _format(export.delivery_next_attempt_at),
        "last_error": export.delivery_error,
        "ended_at": _format(export.delivery_ended_at),
    }


def _format(time: datetime | None) -> str | None:
    return None if time is None else format_timestamp(time)


def _build_urls(export: Export) -> dict[str, str]:
    base = f"{current_settings().public_url}/api/v1"
    url = f"{base}/exports/{export.id}"
    return {"self": url, "file": f"{url}/file", "shooting": f"{base}/shootings/{export.shooting_id}"}
