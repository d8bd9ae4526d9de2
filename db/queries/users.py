"""Find users by id or e-mail address, and delete a user with their personal rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import Table, delete, select, update
from sqlalchemy.orm import undefer

from db.base import TRIGGER_MAINTAINED, Base, has_affected, utc_now
from db.caller import Caller
from db.errors import NotFound
from db.models import (
    AccountExport,
    EmailChange,
    Membership,
    Organization,
    PasswordResetToken,
    Prediction,
    User,
)
from db.models.organizations import Role
from db.models.users import email_key
from db.session import current_session

PERSONAL_BATCH_SIZE = 500


def get_user(user_id: UUID, for_update: bool = False) -> User:
    """Return a user with their highest role, locked if `for_update`.

    Raises:
        NotFound: There is no such user.
    """
    query = select(User).where(User.id == user_id).options(undefer(User.role))
    if for_update:
        query = query.with_for_update(of=User).execution_options(populate_existing=True)
    user = current_session().scalars(query).one_or_none()
    if user is None:
        raise NotFound(value=user_id)
    return user


def lock_users(user_ids: Collection[UUID]) -> None:
    """Lock users in the order of their ids, so that two transactions never deadlock."""
    current_session().execute(
        select(User.id).where(User.id.in_(user_ids)).order_by(User.id).with_for_update()
    )


def lock_for_count(user_id: UUID) -> None:
    """Lock a user while rows are counted against a limit per user.

    Only other counts of the user wait: FOR NO KEY UPDATE does not block inserts that refer to the user.
    """
    current_session().execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))


def find_user_by_email(email: str, for_update: bool = False) -> User | None:
    """Return the user with this e-mail address, ignoring letter case, or None; locked if `for_update`."""
    query = select(User).where(User.email_key == email_key(email))
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    return current_session().scalars(query).one_or_none()


def find_colleague(email: str, caller: Caller) -> User | None:
    """Return the user with this e-mail address if they share an organization with the caller, else None.

    Superusers find every user. For other callers, None does not reveal whether the address has an account.
    """
    query = select(User).where(User.email_key == email_key(email))
    if not caller.is_superuser:
        colleagues = select(Membership.user_id).where(Membership.organization_id.in_(caller.roles))
        query = query.where(User.id.in_(colleagues))
    return current_session().scalars(query).one_or_none()


def delete_email_change(user_id: UUID) -> None:
    """Delete the user's pending change of e-mail address, if there is one."""
    current_session().execute(delete(EmailChange).where(EmailChange.user_id == user_id))


def revoke_mailed_tokens(user_id: UUID) -> None:
    """Revoke all tokens that were mailed to the user's address, which another person may control."""
    delete_email_change(user_id)
    current_session().execute(
        update(PasswordResetToken)
        .where(PasswordResetToken.user_id == user_id, PasswordResetToken.used_at.is_(None))
        .values(used_at=utc_now())
    )


def owns_organization(user_id: UUID) -> bool:
    """Return whether the user owns an organization."""
    query = select(Membership.id).where(Membership.user_id == user_id, Membership.role == Role.OWNER)
    return current_session().scalars(query.limit(1)).first() is not None


def delete_personal_rows(user: User) -> bool:
    """Delete up to `PERSONAL_BATCH_SIZE` personal rows of a user; return whether there may be more."""
    for table in list_owned_tables():
        mine = (table.c.owner_id == user.id, table.c.organization_id.is_(None))
        batch = select(table.c.id).where(*mine).limit(PERSONAL_BATCH_SIZE)
        if has_affected(current_session().execute(delete(table).where(table.c.id.in_(batch)))):
            return True
    return False


def list_owned_tables() -> list[Table]:
    """Return all tables with an owner, referring tables first, so that a new model is included by itself.

    Foreign keys forbid the deletion of rows that are still referred to.
    """
    tables = reversed(Base.metadata.sorted_tables)
    return [
        table
        for table in tables
        if {"owner_id", "organization_id"} <= set(table.c.keys()) and not table.info.get(TRIGGER_MAINTAINED)
    ]


def list_account_exports(user_id: UUID) -> Sequence[UUID]:
    """Return the ids of the copies of the user's data, whose archives a deletion must delete too."""
    return current_session().scalars(select(AccountExport.id).where(AccountExport.user_id == user_id)).all()


def delete_user_rows(user: User) -> None:
    """Delete a user with their personal rows, sessions and memberships.

    Rows that the user created in organizations pass to the owner of each. The user must own no organization.
    """
    for table in list_owned_tables():
        mine = table.c.owner_id == user.id
        current_session().execute(delete(table).where(mine, table.c.organization_id.is_(None)))
        new_owner = (
            select(Membership.user_id)
            .where(Membership.organization_id == table.c.organization_id, Membership.role == Role.OWNER)
            .scalar_subquery()
        )
        current_session().execute(update(table).where(mine).values(owner_id=new_owner))
    # The foreign key would clear the id and leave the name.
    reviewed = update(Prediction).where(Prediction.reviewed_by == user.id)  # unscoped: in every tenant
    anonymous = reviewed.values(reviewed_by=None, reviewed_by_name=None)
    current_session().execute(anonymous.execution_options(synchronize_session=False))
    # Their representations have the number of members. One that is locked is left out: its transaction moves
    # `updated_at` itself, and may wait for this account (a transfer of ownership).
    joined = select(Membership.organization_id).where(Membership.user_id == user.id)
    free = select(Organization.id).where(Organization.id.in_(joined))
    locked = free.order_by(Organization.id).with_for_update(key_share=True, skip_locked=True)
    ids = current_session().scalars(locked).all()
    touched = update(Organization).where(Organization.id.in_(ids)).values(updated_at=utc_now())
    current_session().execute(touched.execution_options(synchronize_session=False))
    current_session().delete(user)
    current_session().flush()
