"""How a background preset looks outside."""

from marshmallow import fields

from handlers.schemas.fields import OwnedSchema, PictureAddress


class BackgroundPresetSchema(OwnedSchema):
    """A background preset."""

    name = fields.Raw()
    kind = fields.Raw()
    color = fields.Raw()
    color_end = fields.Raw()
    image_url = PictureAddress(attribute="image_media")
    shadow = fields.Raw()
    public = fields.Raw()
