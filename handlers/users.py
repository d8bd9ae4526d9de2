"""User accounts and their sessions. Users manage their own account, superusers all."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select

from db.caller import current_caller
from db.errors import NotFound, PermissionDenied
from db.models.account_exports import AccountExport
from db.models.exports import ExportStatus
from db.models.users import TokenFamily, User
from db.queries.users import get_user as get_account
from db.queries.users import lock_users
from db.session import current_session
from handlers.common.context import current_session_id, current_settings, current_storage
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, authenticates_itself, requires
from handlers.common.preconditions import apply_changes, require_etag_match
from handlers.common.reads import Reading, Rows
from handlers.common.responses import (
    SANDBOX_CSP,
    ApiResponse,
    accepted,
    created,
    file_response,
    json_response,
    no_content,
    ok,
)
from handlers.exports import ExportNotReady
from handlers.pipeline.admission.attempt_limits import (
    consume_account_export_quota,
    consume_mail_quota,
    limits_invalid_tokens,
    limits_password_attempts,
    reauthentication_attempts,
)
from handlers.schemas.users import AccountDeletionSchema, AccountExportSchema, SessionSchema, UserSchema
from studio.account_exports import create as account_exports
from studio.accounts.identity import deletions, email_changes, sessions, users
from studio.exports.names import build_content_disposition
from studio.infrastructure.storage import export_key
from studio.mail.mailer import get_mailer

EXPORT_ROWS = Rows(AccountExport, AccountExportSchema)
USER_ROWS = Rows(User, UserSchema)
USERS = ListQuery(User, UserSchema, search_columns=(User.email, User.full_name), is_global=True)
SESSIONS = ListQuery(
    TokenFamily,
    SessionSchema,
    parent={"user_id": TokenFamily.user_id, "now": sessions.is_open(bindparam("now"))},
)
ACCOUNT_EXPORTS = ListQuery(AccountExport, AccountExportSchema, parent={"user_id": AccountExport.user_id})


list_users = Page(USERS, Permission.USERS_ADMIN)


@requires(Permission.USERS_ADMIN)
def create_user(body: dict[str, Any]) -> ApiResponse:
    """Create an account."""
    user = users.create_user(**body)
    return created(user, UserSchema, f"/api/v1/users/{user.id}")


@requires(Permission.ACCOUNT_SELF)
def get_current_user() -> Reading[ApiResponse]:
    """Return the caller's account."""
    user_id = current_caller().user_id
    return (yield from USER_ROWS.ok(user_id, id=user_id))


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def update_current_user(body: dict[str, Any]) -> ApiResponse:
    """Update the caller's account; a new e-mail address takes effect when it is confirmed."""
    user, settings = _get_for_update(current_caller().user_id), current_settings()
    apply_changes(user, body, "full_name")
    if "email" in body:
        password, mailer = body.get("current_password"), get_mailer(settings)
        if email_changes.request_email_change(user, body["email"], password, mailer):
            consume_mail_quota()
    current_session().flush()
    return ok(user, UserSchema)


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def change_password(body: dict[str, Any]) -> ApiResponse:
    """Change the caller's password and end the other sessions."""
    user = get_account(current_caller().user_id, for_update=True)
    users.change_password(user, body["current_password"], body["new_password"], current_session_id())
    return json_response({"message": "Password changed"})


list_sessions = Page(SESSIONS, Permission.ACCOUNT_SELF)


@requires(Permission.ACCOUNT_SELF)
def end_session(session_id: UUID) -> ApiResponse:
    """End a session of the caller."""
    sessions.end_session(current_caller().user_id, session_id)
    return no_content()


@authenticates_itself
@limits_invalid_tokens
def confirm_email_change(body: dict[str, Any]) -> ApiResponse:
    """Change the e-mail address of an account with a mailed token."""
    email_changes.confirm_email_change(body["token"], get_mailer(current_settings()))
    return json_response({"message": "Address changed"})


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def request_account_deletion(body: dict[str, Any]) -> ApiResponse:
    """Schedule the deletion of the caller's account and end its sessions."""
    user, settings = get_account(current_caller().user_id, for_update=True), current_settings()
    deletion = deletions.request_account_deletion(user, body["password"], get_mailer(settings))
    return accepted(deletion, AccountDeletionSchema, "/api/v1/users/me")


@authenticates_itself
@limits_invalid_tokens
def cancel_account_deletion(body: dict[str, Any]) -> ApiResponse:
    """Cancel the deletion of an account with a mailed token."""
    deletions.cancel_account_deletion(body["token"], get_mailer(current_settings()))
    return json_response({"message": "Deletion canceled"})


list_account_exports = Page(ACCOUNT_EXPORTS, Permission.ACCOUNT_SELF)


@requires(Permission.ACCOUNT_SELF)
def request_account_export() -> ApiResponse:
    """Queue a copy of the caller's data."""
    export = account_exports.request_account_export(current_caller().user_id)
    consume_account_export_quota()
    return accepted(export, AccountExportSchema, f"/api/v1/users/me/exports/{export.id}")


@requires(Permission.ACCOUNT_SELF)
def get_account_export(account_export_id: UUID) -> Reading[ApiResponse]:
    """Return a copy of the caller's personal data."""
    caller_id = current_caller().user_id
    return (yield from EXPORT_ROWS.ok(account_export_id, id=account_export_id, user_id=caller_id))


@requires(Permission.ACCOUNT_SELF)
def download_account_export(account_export_id: UUID) -> ApiResponse:
    """Return the archive of a completed copy of the caller's data."""
    export = _get_account_export(account_export_id)
    if export.status != ExportStatus.COMPLETED:
        raise ExportNotReady()
    return file_response(
        current_storage().path(export_key(export.id)),
        "application/zip",
        export.content_hash,
        Cache_Control="private, no-cache",
        X_Content_Type_Options="nosniff",
        Content_Security_Policy=SANDBOX_CSP,
        Content_Disposition=build_content_disposition(f"sartiq-account-{export.created_at:%Y-%m-%d}.zip"),
    )


def _get_account_export(export_id: UUID) -> AccountExport:
    mine = select(AccountExport).where(AccountExport.user_id == current_caller().user_id)
    export = current_session().scalar(mine.where(AccountExport.id == export_id))
    if export is None:
        raise NotFound(value=export_id)
    return export


@requires(Permission.ACCOUNT_SELF)
def get_user(user_id: UUID) -> Reading[ApiResponse]:
    """Return an account: the caller's own, or any for superusers."""
    caller = current_caller()
    if user_id != caller.user_id and not caller.is_superuser:
        raise NotFound(value=user_id)
    return (yield from USER_ROWS.ok(user_id, id=user_id))


@requires(Permission.USERS_ADMIN)
def update_user(user_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update an account."""
    user = _get_for_update_by_superuser(user_id)
    users.update_user(user, body, current_caller().user_id)
    return ok(user, UserSchema)


@requires(Permission.USERS_ADMIN)
def delete_user(user_id: UUID) -> ApiResponse:
    """Delete an account with its personal rows."""
    users.delete_user(_get_for_update_by_superuser(user_id), current_caller().user_id, current_storage())
    return no_content()


def _get_for_update_by_superuser(user_id: UUID) -> User:
    caller_id = current_caller().user_id
    # The caller is locked too: when two superusers deactivate each other at once, the second one is rejected.
    lock_users({user_id, caller_id})
    caller = get_account(caller_id, for_update=True)
    if not (caller.is_superuser and caller.is_active):
        raise PermissionDenied()
    return _get_for_update(user_id)


def _get_for_update(user_id: UUID) -> User:
    user = get_account(user_id, for_update=True)
    require_etag_match(user, UserSchema)
    return user
