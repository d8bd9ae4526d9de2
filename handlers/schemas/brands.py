"""Serialize brands."""

from marshmallow import fields

from handlers.schemas.fields import MediaUrl, OwnedSchema, Uuid


class BrandSchema(OwnedSchema):
    """A brand with its defaults."""

    name = fields.Raw()
    slug = fields.Raw()
    description = fields.Raw()
    website = fields.Raw()
    logo_url = MediaUrl(attribute="logo_media")
    default_guidelines_id = Uuid()
    default_style_id = Uuid()
    default_background_preset_id = Uuid()
    default_resolution_preset_id = Uuid()
