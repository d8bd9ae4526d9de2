"""Finding an account by its address, and removing one with everything that is only its own."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.orm import undefer

from db.base import Base, utc_now
from db.errors import NotFound
from db.models import EmailChange, Membership, PasswordResetToken, User
from db.models.organizations import Role
from db.models.users import email_key
from db.session import current_session
from db.tenancy import Caller


def get_user(user_id: UUID, for_update: bool = False) -> User:
    """The account with its highest role, locked when it is about to change; NotFound when there is none."""
    query = select(User).where(User.id == user_id).options(undefer(User.role))
    if for_update:
        query = query.with_for_update(of=User).execution_options(populate_existing=True)
    user = current_session().scalars(query).one_or_none()
    if user is None:
        raise NotFound()
    return user


def lock_users(user_ids: Collection[UUID]) -> None:
    """Lock accounts, in one order for all, so that two who lock the same ones never wait for each other."""
    current_session().execute(
        select(User.id).where(User.id.in_(user_ids)).order_by(User.id).with_for_update()
    )


def find_user_by_email(email: str, for_update: bool = False) -> User | None:
    """The account with this address in whatever letter case, locked when it shall stay, or None."""
    query = select(User).where(User.email_key == email_key(email))
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    return current_session().scalars(query).one_or_none()


def find_colleague(email: str, caller: Caller) -> User | None:
    """The account with this address if it shares an organization with the caller, for superusers any.

    None for everybody else, known or not.
    """
    query = select(User).where(User.email_key == email_key(email))
    if not caller.is_superuser:
        colleagues = select(Membership.user_id).where(Membership.organization_id.in_(caller.roles))
        query = query.where(User.id.in_(colleagues))
    return current_session().scalars(query).one_or_none()


def delete_email_change(user_id: UUID) -> None:
    """Drop the change of address that waits for its proof, if the account has one."""
    current_session().execute(delete(EmailChange).where(EmailChange.user_id == user_id))


def revoke_mailed_tokens(user_id: UUID) -> None:
    """Make every token that was mailed for the account worthless: others may read its mails."""
    delete_email_change(user_id)
    current_session().execute(
        update(PasswordResetToken)
        .where(PasswordResetToken.user_id == user_id, PasswordResetToken.used_at.is_(None))
        .values(used_at=utc_now())
    )


def owns_organization(user_id: UUID) -> bool:
    """Whether the user is the owner of an organization."""
    query = select(Membership.id).where(Membership.user_id == user_id, Membership.role == Role.OWNER)
    return current_session().scalars(query.limit(1)).first() is not None


def delete_user_rows(user: User) -> None:
    """Delete the account, its personal records, sessions and memberships.

    What it made in organizations stays and passes to the owner of each. The caller has made sure that it
    owns no organization.
    """
    # Deepest first: rows that others refer to cannot go before those others.
    for table in reversed(Base.metadata.sorted_tables):
        if not {"owner_id", "organization_id"} <= set(table.c.keys()):
            continue
        mine = table.c.owner_id == user.id
        current_session().execute(delete(table).where(mine, table.c.organization_id.is_(None)))
        heir = (
            select(Membership.user_id)
            .where(Membership.organization_id == table.c.organization_id, Membership.role == Role.OWNER)
            .scalar_subquery()
        )
        current_session().execute(update(table).where(mine).values(owner_id=heir))
    current_session().delete(user)
    current_session().flush()
