"""Create, update and delete user accounts. Knows no HTTP and no JWT."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.errors import Conflict, EmailTaken, NotFound
from db.models.users import User, email_key
from db.queries.users import (
    delete_user_rows,
    find_user_by_email,
    list_account_exports,
    owns_organization,
    revoke_mailed_tokens,
)
from db.session import after_commit, current_session
from studio.accounts.identity.passwords import hash_new_password, verify_password
from studio.accounts.identity.sessions import end_sessions, set_password
from studio.infrastructure.storage import Storage, export_folder


class OwnAccount(Conflict):
    """Superusers cannot deactivate, demote or delete their own account."""

    code = "own_account"
    default_detail = "Superusers cannot delete, lock or demote their own account"


class OwnsOrganization(Conflict):
    """The account cannot be deleted: an organization would have no owner."""

    code = "owns_organization"
    default_detail = "The account owns an organization: transfer or delete the organization first"


class IncorrectPassword(Conflict):
    """The current password that an authenticated caller sent is wrong."""

    code = "incorrect_password"
    default_detail = "Incorrect password"


class PasswordRequired(Conflict):
    """The request needs a password. The contract cannot say so: it depends on stored data."""

    code = "password_required"
    default_detail = "The address has no account yet: send a `password` for the new one"


def require_password(user: User, password: str) -> None:
    """Verify the password of an account again, because a stolen session does not prove that it is known.

    Raises:
        IncorrectPassword: The password is not the account's.
    """
    if not verify_password(user.hashed_password, password):
        raise IncorrectPassword()


def create_user(email: str, password: str, **values: Any) -> User:
    """Create an account.

    Args:
        email: The address. It is stored in lower case.
        password: The password in plain text.
        **values: Further columns of the row.

    Raises:
        EmailTaken: Another account has the address, in any letter case.
        PasswordTooCommon: The password is common or published.
    """
    _require_email_available(email)
    user = User(
        email=email.lower(), hashed_password=hash_new_password(password), rework_available=0, **values
    )
    current_session().add(user)
    current_session().flush()
    return user


def update_user(user: User, changes: Mapping[str, Any], changed_by: UUID) -> None:
    """Apply a superuser's changes to a locked account. Fields that are absent keep their values.

    Deactivation and a new password end the account's sessions.

    Raises:
        OwnAccount: Superusers cannot deactivate or demote themselves.
        EmailTaken: Another account has the new address.
        PasswordTooCommon: The new password is common or published.
    """
    loses_access = changes.get("is_active") is False or changes.get("is_superuser") is False
    if loses_access and user.id == changed_by:
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
    """Set a new password and end all sessions but the caller's.

    Raises:
        IncorrectPassword: `current_password` is wrong.
        PasswordTooCommon: The new password is common or published.
    """
    require_password(user, current_password)
    set_password(user, new_password, except_session_id=session_id)
    current_session().flush()


def delete_user(user: User, deleted_by: UUID, storage: Storage) -> None:
    """Delete a locked account with its personal rows.

    Raises:
        OwnAccount: Superusers cannot delete themselves.
        OwnsOrganization: The account owns an organization.
    """
    if user.id == deleted_by:
        raise OwnAccount()
    if owns_organization(user.id):
        raise OwnsOrganization()
    delete_account(user, storage)


def delete_account(user: User, storage: Storage) -> None:
    """Delete a locked account with its personal rows, and the archives with copies of its data."""
    for export_id in list_account_exports(user.id):
        after_commit(partial(storage.delete_folder, export_folder(export_id)))
    delete_user_rows(user)


def _require_email_available(email: str) -> None:
    if current_session().scalar(select(User.id).where(User.email_key == email_key(email))) is not None:
        raise EmailTaken()
