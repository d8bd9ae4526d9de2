"""Serialize changes."""

from marshmallow import Schema, fields

from handlers.schemas.fields import Timestamp, Uuid


class ChangeSchema(Schema):
    """A change of the feed."""

    resource_type = fields.Raw()
    resource_id = Uuid()
    external_id = fields.Raw()
    change = fields.Raw()
    changed_at = Timestamp()
