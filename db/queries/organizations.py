"""Find organizations, their members and invitations, and check whether an organization has records."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, union_all
from sqlalchemy.orm import joinedload
from sqlalchemy.orm.interfaces import ORMOption

from db.caller import current_caller, require_permission_in
from db.errors import NotFound, PermissionDenied
from db.models import Invitation, MediaResource, Membership, Organization, Upload
from db.queries.statements import get_row
from db.queries.users import list_owned_tables
from db.session import current_session

# Stored files are deleted with their organization. Without records that use them they have no value.
_DISPOSABLE = {MediaResource.__tablename__, Upload.__tablename__}


def get_organization(
    organization_id: UUID, for_update: bool = False, options: Sequence[ORMOption] = ()
) -> Organization:
    """Return an organization after the permission check.

    Args:
        organization_id: The id of the organization.
        for_update: Whether to lock it. Changes of its members take this lock too.
        options: Loader options.

    Raises:
        NotFound: The organization does not exist or the caller is not a member.
        PermissionDenied: The caller's role lacks the permission, or changed while the request waited for
            the lock.
    """
    require_permission_in(organization_id)
    query = select(Organization).where(Organization.id == organization_id)
    if for_update:
        # A separate statement takes the lock. The next one then has a snapshot with the changes of the
        # transactions it waited for, such as a new owner; the locking statement's snapshot is older.
        current_session().execute(query.with_only_columns(Organization.id).with_for_update())
        query = query.execution_options(populate_existing=True)
    organization = current_session().scalars(query.options(*options)).one_or_none()
    if organization is None:
        raise NotFound(value=organization_id)
    if for_update:
        _require_unchanged_role(organization_id)
    return organization


def _require_unchanged_role(organization_id: UUID) -> None:
    """Check that the caller's role did not change while the request waited for the lock.

    Roles change only under this lock. Without the check, an admin could undo their own demotion with a
    request that was waiting for the lock.

    Raises:
        NotFound: The caller is no longer a member.
        PermissionDenied: The caller has another role now.
    """
    caller = current_caller()
    if caller.is_superuser:
        return
    mine = (Membership.organization_id == organization_id, Membership.user_id == caller.user_id)
    role = current_session().scalar(select(Membership.role).where(*mine))
    if role is None:
        raise NotFound(value=organization_id)
    if role != caller.roles[organization_id]:
        raise PermissionDenied()


def get_membership(organization_id: UUID, user_id: UUID, for_update: bool = False) -> Membership:
    """Return a membership with its user, of an organization that the caller may see.

    Raises:
        NotFound: The user is not a member.
    """
    query = (
        select(Membership)
        .where(Membership.organization_id == organization_id, Membership.user_id == user_id)
        .options(joinedload(Membership.user))
    )
    if for_update:
        query = query.with_for_update(of=Membership).execution_options(populate_existing=True)
    membership = current_session().scalars(query).one_or_none()
    if membership is None:
        raise NotFound(value=user_id)
    return membership


def get_invitation(organization_id: UUID, invitation_id: UUID, for_update: bool = False) -> Invitation:
    """Return an invitation of an organization that the caller may see.

    Raises:
        NotFound: The organization has no such invitation.
    """
    query = select(Invitation).where(
        Invitation.organization_id == organization_id, Invitation.id == invitation_id
    )
    return get_row(query, invitation_id, for_update)


def has_records(organization_id: UUID) -> bool:
    """Return whether the organization has any records; stored files alone do not count."""
    records = union_all(
        *(
            select(table.c.id).where(table.c.organization_id == organization_id)
            for table in list_owned_tables()
            if table.name not in _DISPOSABLE
        )
    )
    return current_session().execute(records.limit(1)).first() is not None
