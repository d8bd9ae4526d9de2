"""How an account looks outside."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema


class UserSchema(IdentifiedSchema):
    """An account with the highest role it has anywhere; nothing of its password."""

    email = fields.Raw()
    full_name = fields.Raw()
    is_active = fields.Raw()
    is_superuser = fields.Raw()
    rework_available = fields.Raw()
    role = fields.Raw()
