"""User accounts and their sessions. Users manage their own account, superusers all."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select

from db.caller import current_caller
from db.errors import NotFound, PermissionDenied
from db.models.account_exports import AccountExport
from db.models.exports import ExportStatus
from db.models.identity_providers import UserIdentity
from db.models.second_factors import SecondFactor
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
    NO_STORE,
    SANDBOX_CSP,
    ApiResponse,
    accepted,
    created,
    encode_json,
    file_response,
    json_response,
    no_content,
    ok,
    serialize,
    strong_etag,
)
from handlers.exports import ExportNotReady
from handlers.pipeline.admission.attempt_limits import (
    consume_account_export_quota,
    consume_mail_quota,
    limits_invalid_tokens,
    limits_password_attempts,
    reauthentication_attempts,
)
from handlers.schemas.identity_providers import IdentitySchema
from handlers.schemas.users import (
    AccountDeletionSchema,
    AccountExportSchema,
    SecondFactorSchema,
    SessionSchema,
    UserSchema,
)
from studio.account_exports import create as account_exports
from studio.accounts.identity import deletions, email_changes, factor_enrollment, sessions, users
from studio.accounts.identity_providers import sign_ins
from studio.exports.names import build_content_disposition
from studio.infrastructure.storage import export_key
from studio.mail.mailer import find_mailer, get_mailer

FACTOR_ROWS = Rows(SecondFactor, SecondFactorSchema)
EXPORT_ROWS = Rows(AccountExport, AccountExportSchema)
IDENTITY_ROWS = Rows(UserIdentity, IdentitySchema)
USER_ROWS = Rows(User, UserSchema)
USERS = ListQuery(User, UserSchema, search_columns=(User.email, User.full_name), is_global=True)
SESSIONS = ListQuery(
    TokenFamily,
    SessionSchema,
    parent={"user_id": TokenFamily.user_id, "now": sessions.is_open(bindparam("now"))},
)
SECOND_FACTORS = ListQuery(
    SecondFactor,
    SecondFactorSchema,
    parent={"user_id": SecondFactor.user_id, "now": SecondFactor.confirmed_at <= bindparam("now")},
)
IDENTITIES = ListQuery(UserIdentity, IdentitySchema, parent={"user_id": UserIdentity.user_id})
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


list_second_factors = Page(SECOND_FACTORS, Permission.ACCOUNT_SELF)


@requires(Permission.ACCOUNT_SELF)
def get_second_factor(factor_id: UUID) -> Reading[ApiResponse]:
    """Return a second factor of the caller."""
    mine = {"id": factor_id, "user_id": current_caller().user_id}
    factor = yield from FACTOR_ROWS.get(factor_id, **mine)
    if factor.confirmed_at is None:
        raise NotFound(value=factor_id)
    return ok(factor, SecondFactorSchema)


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def start_totp(body: dict[str, Any]) -> ApiResponse:
    """Create the secret of an authenticator app for the caller."""
    new = factor_enrollment.start_totp(_lock_own_account(), body, current_settings())
    data = {"secret": new.secret, "uri": new.uri, "qr_code": new.qr_code}
    return json_response(data, Cache_Control="no-store")


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def confirm_totp(body: dict[str, Any]) -> ApiResponse:
    """Add the authenticator app whose secret the caller created."""
    return _enrolled(factor_enrollment.confirm_totp(_lock_own_account(), body["otp"], current_settings()))


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def start_passkey(body: dict[str, Any]) -> ApiResponse:
    """Return the options with which a browser creates a passkey for the caller."""
    options = factor_enrollment.start_passkey(_lock_own_account(), body, current_settings())
    return json_response({"options": options}, Cache_Control="no-store")


@requires(Permission.ACCOUNT_SELF)
def register_passkey(body: dict[str, Any]) -> ApiResponse:
    """Add a passkey that the caller's browser has created."""
    user, settings = _lock_own_account(), current_settings()
    return _enrolled(factor_enrollment.register_passkey(user, body["name"], body["credential"], settings))


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def replace_recovery_codes(body: dict[str, Any]) -> ApiResponse:
    """Return new recovery codes of the caller."""
    codes = factor_enrollment.replace_recovery_codes(_lock_own_account(), body, current_settings())
    return json_response({"recovery_codes": codes}, Cache_Control="no-store")


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def remove_second_factor(factor_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Remove a second factor of the caller."""
    factor_enrollment.remove_second_factor(_lock_own_account(), factor_id, body, current_settings())
    return no_content()


@requires(Permission.USERS_ADMIN)
def reset_second_factors(user_id: UUID) -> ApiResponse:
    """Remove all second factors of an account."""
    user = _lock_account_by_superuser(user_id)
    factor_enrollment.reset_second_factors(user, current_caller().user_id, current_settings())
    return no_content()


def _lock_own_account() -> User:
    return get_account(current_caller().user_id, for_update=True)


def _enrolled(enrolled: factor_enrollment.Enrolled) -> ApiResponse:
    factor = enrolled.factor
    data = serialize(factor, SecondFactorSchema)
    headers = {
        "Location": f"/api/v1/users/me/second-factors/{factor.id}",
        # That of later GET responses, which do not contain the codes.
        "ETag": strong_etag(encode_json(data)),
        **NO_STORE,
    }
    return ApiResponse(201, {**data, "recovery_codes": enrolled.recovery_codes}, headers)


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


list_identities = Page(IDENTITIES, Permission.ACCOUNT_SELF)


@requires(Permission.ACCOUNT_SELF)
def add_identity(body: dict[str, Any]) -> ApiResponse:
    """Link a user of an identity provider to the caller's account."""
    identity = sign_ins.add_identity(
        current_caller().user_id, body["code"], body["code_verifier"], find_mailer(current_settings())
    )
    return created(identity, IdentitySchema, f"/api/v1/users/me/identities/{identity.id}")


@requires(Permission.ACCOUNT_SELF)
def get_identity(identity_id: UUID) -> Reading[ApiResponse]:
    """Return a user of an identity provider who is linked to the caller's account."""
    caller_id = current_caller().user_id
    return (yield from IDENTITY_ROWS.ok(identity_id, id=identity_id, user_id=caller_id))


@requires(Permission.ACCOUNT_SELF)
def remove_identity(identity_id: UUID) -> ApiResponse:
    """Remove a link; the sessions from the identity provider end."""
    sign_ins.remove_identity(current_caller().user_id, identity_id)
    return no_content()


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
    user = _lock_account_by_superuser(user_id)
    require_etag_match(user, UserSchema)
    return user


def _lock_account_by_superuser(user_id: UUID) -> User:
    caller_id = current_caller().user_id
    # The caller is locked too: when two superusers deactivate each other at once, the second one is rejected.
    lock_users({user_id, caller_id})
    caller = get_account(caller_id, for_update=True)
    if not (caller.is_superuser and caller.is_active):
        raise PermissionDenied()
    return get_account(user_id, for_update=True)


def _get_for_update(user_id: UUID) -> User:
    user = get_account(user_id, for_update=True)
    require_etag_match(user, UserSchema)
    return user
