"""Organizations and their members: founding, taking in, and what may not happen to the one owner.

Whether the caller may do it was decided before; nothing here asks again.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from db.errors import AlreadyMember, Conflict, NotFound, SlugTaken
from db.models.media import MediaResource, Upload
from db.models.organizations import Membership, Organization, Role
from db.queries.organizations import has_records
from db.queries.users import find_user_by_email
from db.session import session
from studio.slugs import ATTEMPTS, MAX_SLUG_LENGTH, free_of, slug_of


class NotEmpty(Conflict):
    """An organization that still has records was to be deleted."""

    code = "not_empty"
    default_detail = "The organization still has records"


class OwnerRequired(Conflict):
    """The owner was to lose the role or the membership; an organization always has one."""

    code = "owner_required"
    default_detail = "The organization's owner keeps the role"


def found_organization(name: str, slug: str | None, owner_id: UUID) -> Organization:
    """A new organization with its owner as the one member.

    SlugTaken when the slug is another organization's; without one, a free slug is derived from the name.
    """
    organization = _with_slug(Organization(name=name, logo_media=None), slug)
    session().add(Membership(organization_id=organization.id, user_id=owner_id, role=Role.OWNER))
    session().flush()
    session().refresh(organization, ["owner_id", "members_count"])
    return organization


def dissolve(organization: Organization) -> None:
    """Delete a locked organization with its memberships; NotEmpty while it has records.

    Pictures that nothing refers to go with it.
    """
    if has_records(organization.id):
        raise NotEmpty()
    organization.logo_media_id = None
    session().flush()
    for model in (Upload, MediaResource):
        session().execute(delete(model).where(model.organization_id == organization.id))
    session().delete(organization)
    session().flush()


def take_in(organization: Organization, email: str, role: str) -> Membership:
    """Make the account with this address a member.

    NotFound when there is no such account, AlreadyMember when it is one.
    """
    user = find_user_by_email(email)
    if user is None:
        raise NotFound()
    mine = (Membership.organization_id == organization.id, Membership.user_id == user.id)
    if session().scalar(select(Membership.id).where(*mine)) is not None:
        raise AlreadyMember()
    membership = Membership(organization_id=organization.id, user=user, role=role)
    session().add(membership)
    session().flush()
    return membership


def change_role(membership: Membership, role: str) -> None:
    """Give a locked membership another role; OwnerRequired for the owner's."""
    _require_other_than_owner(membership)
    membership.role = role
    session().flush()


def dismiss(membership: Membership) -> None:
    """End a locked membership; OwnerRequired for the owner's."""
    _require_other_than_owner(membership)
    session().delete(membership)
    session().flush()


def _require_other_than_owner(membership: Membership) -> None:
    if membership.role == Role.OWNER:
        raise OwnerRequired()


def _with_slug(organization: Organization, slug: str | None) -> Organization:
    """Insert the organization; a derived slug makes way when another request takes it first."""
    for _ in range(ATTEMPTS):
        organization.slug = slug or _free_slug(organization.name)
        try:
            with session().begin_nested():
                session().add(organization)
        except IntegrityError:
            if slug:
                break
            continue
        return organization
    raise SlugTaken()


def _free_slug(name: str) -> str:
    wanted = slug_of(name, "organization")
    # A long slug loses its end to the number, so look for what its beginning can collide with.
    beginning = wanted[: MAX_SLUG_LENGTH - 8]
    taken = session().scalars(select(Organization.slug).where(Organization.slug.startswith(beginning)))
    return free_of(wanted, set(taken))
