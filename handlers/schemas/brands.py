"""How a brand looks outside."""

from marshmallow import fields

from handlers.schemas.fields import Identifier, OwnedSchema, PictureAddress


class BrandSchema(OwnedSchema):
    """A brand with its defaults."""

    name = fields.Raw()
    slug = fields.Raw()
    description = fields.Raw()
    website = fields.Raw()
    logo_url = PictureAddress(attribute="logo_media")
    default_guidelines_id = Identifier()
    default_style_id = Identifier()
    default_background_preset_id = Identifier()
    default_resolution_preset_id = Identifier()
