"""How guidelines look outside."""

from marshmallow import fields

from handlers.schemas.fields import Identifier, Identifiers, OwnedSchema


class GuidelinesSchema(OwnedSchema):
    """Guidelines with the shot types and subjects that they allow."""

    name = fields.Raw()
    file_format = fields.Raw()
    background_preset_id = Identifier()
    resolution_preset_id = Identifier()
    shot_type_ids = Identifiers()
    subject_ids = Identifiers()
    margin_percent = fields.Raw()
    quality = fields.Raw()
    notes = fields.Raw()
