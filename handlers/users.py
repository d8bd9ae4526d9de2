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
from db.session import session
from db.tenancy import current_caller
from handlers.answers import Answer, created, no_content, ok
from handlers.answers import listing as plain
from handlers.auth import current_session_id
from handlers.conditional import apply_changes, require_fresh
from handlers.current import current_settings
from handlers.paging import Listing
from handlers.permissions import Permission, checks_proof, requires
from handlers.schemas.users import SessionSchema, UserSchema
from handlers.trying import count_mail, counts_guesses, counts_wrong_tokens, own_password_tries
from studio.identity import accounts, email_changes, sessions
from studio.identity.mail import mailer_for

USERS = Listing(User, UserSchema, searched=(User.email, User.full_name), of_everybody=True)
SESSIONS = Listing(
    TokenFamily,
    SessionSchema,
    within={"user_id": TokenFamily.user_id, "now": sessions.is_open(bindparam("now"))},
)


@requires(Permission.USERS_ADMIN)
def list_users(**asked: Any) -> Answer:
    """All accounts."""
    return USERS.page(asked)


@requires(Permission.USERS_ADMIN)
def create_user(body: dict[str, Any]) -> Answer:
    """Make an account."""
    user = accounts.make_account(**body)
    return created(user, UserSchema, f"/api/v1/users/{user.id}")


@requires(Permission.ACCOUNT_SELF)
def get_current_user() -> Answer:
    """The account that the token belongs to."""
    return ok(get_account(current_caller().user_id), UserSchema)


@requires(Permission.ACCOUNT_SELF)
@counts_guesses(own_password_tries)
def update_current_user(body: dict[str, Any]) -> Answer:
    """Change what the body names of one's own account; another address waits for its proof."""
    user, settings = _for_change(current_caller().user_id), current_settings()
    apply_changes(user, body, "full_name")
    if "email" in body:
        password, mailer = body.get("current_password"), mailer_for(settings)
        if email_changes.ask_for_change(user, body["email"], password, mailer, settings.public_url):
            count_mail()
    session().flush()
    return ok(user, UserSchema)


@requires(Permission.ACCOUNT_SELF)
@counts_guesses(own_password_tries)
def change_password(body: dict[str, Any]) -> Answer:
    """Set a new password and end the other sessions."""
    user = get_account(current_caller().user_id, for_update=True)
    accounts.change_password(user, body["current_password"], body["new_password"], current_session_id())
    return plain({"message": "Password changed"})


@requires(Permission.ACCOUNT_SELF)
def list_sessions(**asked: Any) -> Answer:
    """The open sessions of one's own account."""
    return SESSIONS.page({**asked, "user_id": current_caller().user_id, "now": utc_now()})


@requires(Permission.ACCOUNT_SELF)
def end_session(session_id: UUID) -> Answer:
    """End one session of one's own account."""
    sessions.end_session_of(current_caller().user_id, session_id)
    return no_content()


@checks_proof
@counts_wrong_tokens
def confirm_email_change(body: dict[str, Any]) -> Answer:
    """Give an account the address that a mailed token proves."""
    email_changes.confirm_change(body["token"], mailer_for(current_settings()))
    return plain({"message": "Address changed"})


@requires(Permission.ACCOUNT_SELF)
def get_user(user_id: UUID) -> Answer:
    """One's own account; any for superusers."""
    caller = current_caller()
    if user_id != caller.user_id and not caller.is_superuser:
        raise NotFound()
    return ok(get_account(user_id), UserSchema)


@requires(Permission.USERS_ADMIN)
def update_user(user_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names of any account."""
    user = _for_change_by_superuser(user_id)
    accounts.change_account(user, body, current_caller().user_id)
    return ok(user, UserSchema)


@requires(Permission.USERS_ADMIN)
def delete_user(user_id: UUID) -> Answer:
    """Remove an account with its personal rows."""
    accounts.remove_account(_for_change_by_superuser(user_id), current_caller().user_id)
    return no_content()


def _for_change_by_superuser(user_id: UUID) -> User:
    caller_id = current_caller().user_id
    # The caller's too: of two superusers who shut each other out at once, one is none any more by then.
    lock_users({user_id, caller_id})
    caller = get_account(caller_id, for_update=True)
    if not (caller.is_superuser and caller.is_active):
        raise PermissionDenied()
    return _for_change(user_id)


def _for_change(user_id: UUID) -> User:
    user = get_account(user_id, for_update=True)
    require_fresh(user, UserSchema)
    return user
