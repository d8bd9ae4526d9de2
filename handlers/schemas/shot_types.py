"""Serialize shot types."""

from marshmallow import fields

from handlers.schemas.fields import OwnedSchema


class ShotTypeSchema(OwnedSchema):
    """A shot type."""

    name = fields.Raw()
    slug = fields.Raw()
    label = fields.Raw()
    description = fields.Raw()
    framing = fields.Raw()
    view_angle = fields.Raw()
    default_padding_percent = fields.Raw()
    public = fields.Raw()
