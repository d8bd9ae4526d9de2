"""Serialize API keys, without the secret: only the response that creates a key contains it."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, Timestamp, Uuid


class ApiKeySchema(IdentifiedSchema):
    """An API key without its secret."""

    organization_id = Uuid()
    created_by_id = Uuid()
    name = fields.Raw()
    scopes = fields.Raw()
    last_four = fields.Raw()
    expires_at = Timestamp()
    last_used_at = Timestamp()
