"""Serialize resolution presets."""

from marshmallow import fields

from handlers.schemas.fields import OwnedSchema


class ResolutionPresetSchema(OwnedSchema):
    """A resolution preset."""

    name = fields.Raw()
    width = fields.Raw()
    height = fields.Raw()
    public = fields.Raw()
