"""Reading organizations by membership, what belongs to one, and whether it holds records."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, union_all
from sqlalchemy.orm import joinedload
from sqlalchemy.orm.interfaces import ORMOption

from db.base import Base
from db.errors import NotFound, PermissionDenied
from db.models import Invitation, MediaResource, Membership, Organization, Upload
from db.session import current_session
from db.tenancy import current_caller, require_permission_in

# They die with their organization: files alone are nothing that its members would miss.
_DISPOSABLE = {MediaResource.__tablename__, Upload.__tablename__}


def get_organization(
    organization_id: UUID, for_update: bool = False, options: Sequence[ORMOption] = ()
) -> Organization:
    """The organization, locked when it, or who belongs to it, is about to change.

    NotFound when it is absent or the caller is no member; PermissionDenied when the role lacks the running
    operation's permission, or is another one by the time of the lock.
    """
    require_permission_in(organization_id)
    query = select(Organization).where(Organization.id == organization_id)
    if for_update:
        # By a statement of its own: the next ones see what those before left behind, as the owner.
        current_session().execute(query.with_only_columns(Organization.id).with_for_update())
        query = query.execution_options(populate_existing=True)
    organization = current_session().scalars(query.options(*options)).one_or_none()
    if organization is None:
        raise NotFound()
    if for_update:
        _require_unchanged_role(organization_id)
    return organization


def _require_unchanged_role(organization_id: UUID) -> None:
    """NotFound or PermissionDenied when the caller's role changed while the request waited for the lock.

    Roles change under it only, so without this a request that began as an admin's could undo its demotion.
    """
    caller = current_caller()
    if caller.is_superuser:
        return
    mine = (Membership.organization_id == organization_id, Membership.user_id == caller.user_id)
    role = current_session().scalar(select(Membership.role).where(*mine))
    if role is None:
        raise NotFound()
    if role != caller.roles[organization_id]:
        raise PermissionDenied()


def get_membership(organization_id: UUID, user_id: UUID, for_update: bool = False) -> Membership:
    """One member with the account, of an organization the caller may see; NotFound when the user is none."""
    query = (
        select(Membership)
        .where(Membership.organization_id == organization_id, Membership.user_id == user_id)
        .options(joinedload(Membership.user))
    )
    if for_update:
        query = query.with_for_update(of=Membership).execution_options(populate_existing=True)
    membership = current_session().scalars(query).one_or_none()
    if membership is None:
        raise NotFound()
    return membership


def get_invitation(organization_id: UUID, invitation_id: UUID, for_update: bool = False) -> Invitation:
    """One invitation of an organization the caller may see; NotFound when there is none."""
    query = select(Invitation).where(
        Invitation.organization_id == organization_id, Invitation.id == invitation_id
    )
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    invitation = current_session().scalars(query).one_or_none()
    if invitation is None:
        raise NotFound()
    return invitation


def has_records(organization_id: UUID) -> bool:
    """Whether any record of the studio belongs to the organization; stored files alone do not count."""
    tables = [
        table
        for table in Base.metadata.sorted_tables
        if {"owner_id", "organization_id"} <= set(table.c.keys()) and table.name not in _DISPOSABLE
    ]
    found = union_all(
        *(select(table.c.id).where(table.c.organization_id == organization_id) for table in tables)
    )
    return current_session().execute(found.limit(1)).first() is not None
