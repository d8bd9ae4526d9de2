"""Accounts: one's own, and all of them for superusers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import bindparam

from db.base import utc_now
from db.errors import NotFound, PermissionDenied
from db.models.users import TokenFamily, User
from db.queries.users import get_user as get_account
from db.queries.users import lock_users
from db.session import current_session
from db.tenancy import current_caller
from handlers.common.attempt_limits import (
    consume_mail_quota,
    limits_invalid_tokens,
    limits_password_attempts,
    reauthentication_attempts,
)
from handlers.common.context import current_settings
from handlers.common.pagination import ListQuery
from handlers.common.permissions import Permission, authenticates_itself, requires
from handlers.common.preconditions import apply_changes, require_etag_match
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.common.responses import json_response as plain
from handlers.pipeline.auth import current_session_id
from handlers.schemas.users import SessionSchema, UserSchema
from studio.accounts.identity import email_changes, sessions, users
from studio.accounts.identity.mail import get_mailer

USERS = ListQuery(User, UserSchema, search_columns=(User.email, User.full_name), is_global=True)
SESSIONS = ListQuery(
    TokenFamily,
    SessionSchema,
    parent={"user_id": TokenFamily.user_id, "now": sessions.is_open(bindparam("now"))},
)


@requires(Permission.USERS_ADMIN)
def list_users(**params: Any) -> ApiResponse:
    """All accounts."""
    return USERS.list_response(params)


@requires(Permission.USERS_ADMIN)
def create_user(body: dict[str, Any]) -> ApiResponse:
    """Make an account."""
    user = users.create_user(**body)
    return created(user, UserSchema, f"/api/v1/users/{user.id}")


@requires(Permission.ACCOUNT_SELF)
def get_current_user() -> ApiResponse:
    """The account that the token belongs to."""
    return ok(get_account(current_caller().user_id), UserSchema)


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def update_current_user(body: dict[str, Any]) -> ApiResponse:
    """Change what the body names of one's own account; another address waits for its proof."""
    user, settings = _get_for_update(current_caller().user_id), current_settings()
    apply_changes(user, body, "full_name")
    if "email" in body:
        password, mailer = body.get("current_password"), get_mailer(settings)
        if email_changes.request_email_change(user, body["email"], password, mailer, settings.public_url):
            consume_mail_quota()
    current_session().flush()
    return ok(user, UserSchema)


@requires(Permission.ACCOUNT_SELF)
@limits_password_attempts(reauthentication_attempts)
def change_password(body: dict[str, Any]) -> ApiResponse:
    """Set a new password and end the other sessions."""
    user = get_account(current_caller().user_id, for_update=True)
    users.change_password(user, body["current_password"], body["new_password"], current_session_id())
    return plain({"message": "Password changed"})


@requires(Permission.ACCOUNT_SELF)
def list_sessions(**params: Any) -> ApiResponse:
    """The open sessions of one's own account."""
    return SESSIONS.list_response({**params, "user_id": current_caller().user_id, "now": utc_now()})


@requires(Permission.ACCOUNT_SELF)
def end_session(session_id: UUID) -> ApiResponse:
    """End one session of one's own account."""
    sessions.end_session(current_caller().user_id, session_id)
    return no_content()


@authenticates_itself
@limits_invalid_tokens
def confirm_email_change(body: dict[str, Any]) -> ApiResponse:
    """Give an account the address that a mailed token proves."""
    email_changes.confirm_email_change(body["token"], get_mailer(current_settings()))
    return plain({"message": "Address changed"})


@requires(Permission.ACCOUNT_SELF)
def get_user(user_id: UUID) -> ApiResponse:
    """One's own account; any for superusers."""
    caller = current_caller()
    if user_id != caller.user_id and not caller.is_superuser:
        raise NotFound()
    return ok(get_account(user_id), UserSchema)


@requires(Permission.USERS_ADMIN)
def update_user(user_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Change what the body names of any account."""
    user = _get_for_update_by_superuser(user_id)
    users.update_user(user, body, current_caller().user_id)
    return ok(user, UserSchema)


@requires(Permission.USERS_ADMIN)
def delete_user(user_id: UUID) -> ApiResponse:
    """Remove an account with its personal rows."""
    users.delete_user(_get_for_update_by_superuser(user_id), current_caller().user_id)
    return no_content()


def _get_for_update_by_superuser(user_id: UUID) -> User:
    caller_id = current_caller().user_id
    # The caller's too: of two superusers who shut each other out at once, one is none any more by then.
    lock_users({user_id, caller_id})
    caller = get_account(caller_id, for_update=True)
    if not (caller.is_superuser and caller.is_active):
        raise PermissionDenied()
    return _get_for_update(user_id)


def _get_for_update(user_id: UUID) -> User:
    user = get_account(user_id, for_update=True)
    require_etag_match(user, UserSchema)
    return user
