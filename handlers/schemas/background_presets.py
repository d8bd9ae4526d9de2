"""Serialize background presets."""

from marshmallow import fields

from handlers.schemas.fields import MediaUrl, OwnedSchema


class BackgroundPresetSchema(OwnedSchema):
    """A background preset."""

    name = fields.Raw()
    kind = fields.Raw()
    color = fields.Raw()
    color_end = fields.Raw()
    image_url = MediaUrl(attribute="image_media")
    shadow = fields.Raw()
    public = fields.Raw()
