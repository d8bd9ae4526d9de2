"""Serialize styles."""

from marshmallow import fields

from handlers.schemas.fields import MediaUrl, OwnedSchema


class StyleSchema(OwnedSchema):
    """A style."""

    name = fields.Raw()
    slug = fields.Raw()
    description = fields.Raw()
    prompt = fields.Raw()
    tone = fields.Raw()
    lighting = fields.Raw()
    contrast = fields.Raw()
    saturation = fields.Raw()
    temperature = fields.Raw()
    lora_weight = fields.Raw()
    cover_image = MediaUrl(attribute="cover_media")
    public = fields.Raw()
