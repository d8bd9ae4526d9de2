"""Serialize accounts, their sessions and their deletions."""

from marshmallow import fields

from handlers.pipeline.auth import current_session_id
from handlers.schemas.fields import IdentifiedSchema, Timestamp


class UserSchema(IdentifiedSchema):
    """An account with its highest role in any organization."""

    email = fields.Raw()
    full_name = fields.Raw()
    is_active = fields.Raw()
    is_superuser = fields.Raw()
    rework_available = fields.Raw()
    role = fields.Raw()


class AccountDeletionSchema(IdentifiedSchema):
    """A scheduled deletion, without its token."""

    deletes_at = Timestamp()


class SessionSchema(IdentifiedSchema):
    """A session, without its tokens."""

    user_agent = fields.Raw()
    last_used_at = Timestamp()
    expires_at = Timestamp()
    is_current = fields.Function(lambda row: str(row.id) == str(current_session_id()))
