"""How API keys look outside: never with the secret, which only the answer that makes one adds."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, Identifier, Moment


class ApiKeySchema(IdentifiedSchema):
    """A key as its organization sees it."""

    organization_id = Identifier()
    created_by_id = Identifier()
    name = fields.Raw()
    scopes = fields.Raw()
    last_four = fields.Raw()
    expires_at = Moment()
    last_used_at = Moment()
