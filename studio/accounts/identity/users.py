"""Accounts: making, changing and removing them, and what administrators cannot do to themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.errors import Conflict, EmailTaken, NotFound
from db.models.users import User, email_key
from db.queries.users import (
    delete_user_rows,
    find_user_by_email,
    owns_organization,
    revoke_mailed_tokens,
)
from db.session import current_session
from studio.accounts.identity.passwords import hash_new_password, verify_password
from studio.accounts.identity.sessions import end_sessions, set_password


class OwnAccount(Conflict):
    """Administrators would lock, demote or delete themselves."""

    code = "own_account"
    default_detail = "This cannot be done to one's own account"


class OwnsOrganization(Conflict):
    """The account owns an organization, which would be left without owner."""

    code = "owns_organization"
    default_detail = "The account owns an organization"


class IncorrectPassword(Conflict):
    """The current password was given wrong by somebody who is signed in."""

    code = "incorrect_password"
    default_detail = "Incorrect password"


class PasswordRequired(Conflict):
    """What was asked for needs a password, which no schema can know beforehand."""

    code = "password_required"
    default_detail = "This needs a password"


def require_password(user: User, password: str) -> None:
    """IncorrectPassword unless it is the account's: who found an open session does not have it."""
    if not verify_password(user.hashed_password, password):
        raise IncorrectPassword()


def create_user(email: str, password: str, **values: Any) -> User:
    """A new account; EmailTaken when another one has the address, in whatever case, PasswordTooCommon."""
    _require_email_available(email)
    user = User(
        email=email.lower(), hashed_password=hash_new_password(password), rework_available=0, **values
    )
    current_session().add(user)
    current_session().flush()
    return user


def update_user(user: User, changes: Mapping[str, Any], changed_by: UUID) -> None:
    """Apply an administrator's changes to a locked account; absent stays, null clears.

    A lock or a password ends its sessions. OwnAccount for locking or demoting oneself, EmailTaken,
    PasswordTooCommon.
    """
    loses_power = changes.get("is_active") is False or changes.get("is_superuser") is False
    if loses_power and user.id == changed_by:
        raise OwnAccount()
    if "email" in changes and email_key(changes["email"]) != user.email_key:
        _require_email_available(changes["email"])
        user.email = changes["email"].lower()
        revoke_mailed_tokens(user.id)
    if "password" in changes:
        set_password(user, changes["password"])
    if changes.get("is_active") is False:
        end_sessions(user.id)
    for name in ("full_name", "is_active", "is_superuser", "rework_available"):
        if name in changes:
            setattr(user, name, changes[name])
    current_session().flush()


def reset_superuser(email: str, password: str, full_name: str | None = None) -> User:
    """Set the password of an existing account, make it an active superuser and end its sessions.

    Without `full_name` the account keeps its name.

    Raises:
        NotFound: No account has this address.
        PasswordTooCommon: The password is common or published.
    """
    user = find_user_by_email(email, for_update=True)
    if user is None:
        raise NotFound()
    set_password(user, password)
    user.is_active = user.is_superuser = True
    if full_name is not None:
        user.full_name = full_name
    current_session().flush()
    return user


def change_password(user: User, current_password: str, new_password: str, session_id: UUID) -> None:
    """Set a new password and end all other sessions.

    IncorrectPassword when the current one is wrong, PasswordTooCommon.
    """
    require_password(user, current_password)
    set_password(user, new_password, except_session_id=session_id)
    current_session().flush()


def delete_user(user: User, deleted_by: UUID) -> None:
    """Delete a locked account with its personal rows; OwnAccount or OwnsOrganization where that cannot be."""
    if user.id == deleted_by:
        raise OwnAccount()
    if owns_organization(user.id):
        raise OwnsOrganization()
    delete_user_rows(user)


def _require_email_available(email: str) -> None:
    if current_session().scalar(select(User.id).where(User.email_key == email_key(email))) is not None:
        raise EmailTaken()
