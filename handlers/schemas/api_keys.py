"""How API keys look outside: never with the secret, which only the answer that makes one adds."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, Timestamp, Uuid


class ApiKeySchema(IdentifiedSchema):
    """A key as its organization sees it."""

    organization_id = Uuid()
    created_by_id = Uuid()
    name = fields.Raw()
    scopes = fields.Raw()
    last_four = fields.Raw()
    expires_at = Timestamp()
    last_used_at = Timestamp()
