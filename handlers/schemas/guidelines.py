"""Serialize guidelines."""

from marshmallow import fields

from handlers.schemas.fields import OwnedSchema, Uuid, UuidList


class GuidelinesSchema(OwnedSchema):
    """Guidelines with the shot types and subjects that they allow."""

    name = fields.Raw()
    file_format = fields.Raw()
    background_preset_id = Uuid()
    resolution_preset_id = Uuid()
    shot_type_ids = UuidList()
    subject_ids = UuidList()
    margin_percent = fields.Raw()
    quality = fields.Raw()
    notes = fields.Raw()
    marketplace = fields.Raw()
