"""How an export looks outside."""

from __future__ import annotations

from marshmallow import fields

from db.models.exports import Export
from handlers.schemas.fields import OwnedSchema, Timestamp, Uuid


class ExportSchema(OwnedSchema):
    """An order for an archive, and how far it is."""

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
    address = f"/api/v1/exports/{export.id}"
    shooting = f"/api/v1/shootings/{export.shooting_id}"
    return {"self": address, "file": f"{address}/file", "shooting": shooting}
