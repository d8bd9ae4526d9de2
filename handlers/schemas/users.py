"""Serialize accounts, their sessions, deletions and copies of data."""

from marshmallow import fields

from db.models.account_exports import AccountExport
from handlers.common.context import current_session_id, current_settings
from handlers.schemas.fields import IdentifiedSchema, Timestamp


class UserSchema(IdentifiedSchema):
    """An account with its highest role in any organization."""

    email = fields.Raw()
    full_name = fields.Raw()
    is_active = fields.Raw()
    is_superuser = fields.Raw()
    rework_available = fields.Raw()
    role = fields.Raw()
    has_second_factor = fields.Raw()


class SecondFactorSchema(IdentifiedSchema):
    """An authenticator app, a passkey or the recovery codes of an account, without their secrets."""

    type = fields.Raw()
    name = fields.Raw()
    last_used_at = Timestamp()
    codes_left = fields.Function(lambda row: None if row.code_hashes is None else len(row.code_hashes))


class AccountDeletionSchema(IdentifiedSchema):
    """A scheduled deletion, without its token."""

    deletes_at = Timestamp()


class AccountExportSchema(IdentifiedSchema):
    """A copy of a user's data with its progress."""

    status = fields.Raw()
    progress = fields.Raw()
    file_size = fields.Raw()
    content_hash = fields.Raw()
    completed_at = Timestamp()
    expires_at = Timestamp()
    error = fields.Raw()
    urls = fields.Function(lambda export: _build_urls(export))


def _build_urls(export: AccountExport) -> dict[str, str]:
    url = f"{current_settings().public_url}/api/v1/users/me/exports/{export.id}"
    return {"self": url, "file": f"{url}/download"}


class SessionSchema(IdentifiedSchema):
    """A session, without its tokens."""

    user_agent = fields.Raw()
    address = fields.Raw()
    last_used_at = Timestamp()
    expires_at = Timestamp()
    is_current = fields.Function(lambda row: str(row.id) == str(current_session_id()))
