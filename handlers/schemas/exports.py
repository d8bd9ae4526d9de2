"""Serialize exports."""

from __future__ import annotations

from marshmallow import fields

from db.models.exports import Export
from handlers.common.context import current_settings
from handlers.schemas.fields import OwnedSchema, Timestamp, Uuid


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
    urls = fields.Function(lambda export: _build_urls(export))


def _build_urls(export: Export) -> dict[str, str]:
    base = f"{current_settings().public_url}/api/v1"
    url = f"{base}/exports/{export.id}"
    return {"self": url, "file": f"{url}/file", "shooting": f"{base}/shootings/{export.shooting_id}"}
