"""Organizations and their members: founding, taking in, and what may not happen to the one owner.

Whether the caller may do it was decided before; nothing here asks again. Who belongs to an organization, and
in which role, changes while it is locked.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from db.audit import record_change
from db.base import new_id
from db.errors import AlreadyMember, Conflict, NotFound, SlugTaken
from db.models.media import MediaResource, Upload
from db.models.organizations import Invitation, Membership, Organization, Role
from db.models.users import User
from db.queries.organizations import get_membership, has_records
from db.queries.users import find_colleague, get_user
from db.session import after_commit, current_session, query_as_system
from db.tenancy import Caller, extend_role_to
from studio.accounts.identity.mail import Mailer, strip_newlines
from studio.catalogue.slugs import MAX_ATTEMPTS, MAX_SLUG_LENGTH, make_unique, slugify


class NotEmpty(Conflict):
    """An organization that still has records was to be deleted."""

    code = "not_empty"
    default_detail = "The organization still has records"


class OwnerRequired(Conflict):
    """The owner was to lose the role or the membership; an organization always has one."""

    code = "owner_required"
    default_detail = "The organization's owner keeps the role"


class AlreadyOwner(Conflict):
    """The organization was to be handed over to its owner."""

    code = "already_owner"
    default_detail = "The account owns the organization already"


class AccountLocked(Conflict):
    """The organization was to be handed over to an account that is locked out."""

    code = "account_locked"
    default_detail = "The account is locked"


_NEW_OWNER_EMAIL = """\
Hello,

you are now the owner of the organization {organization} at Sartiq.
What it generates is paid by your plan from now on. The owner until now stays as an admin.

If you do not want that, hand it over to another member with
POST {public_url}/api/v1/organizations/{organization_id}/transfer-ownership
"""


def create_organization(name: str, slug: str | None, owner_id: UUID) -> Organization:
    """A new organization with its owner as the one member.

    SlugTaken when the slug is another organization's; without one, a free slug is derived from the name.
    """
    organization = Organization(id=new_id(), name=name, logo_media=None)
    extend_role_to(organization.id)
    _insert_with_slug(organization, slug)
    current_session().add(Membership(organization_id=organization.id, user_id=owner_id, role=Role.OWNER))
    current_session().flush()
    current_session().refresh(organization, ["owner_id", "members_count"])
    return organization


def delete_organization(organization: Organization) -> None:
    """Delete a locked organization with its memberships; NotEmpty while it has records.

    Pictures that nothing refers to go with it.
    """
    if has_records(organization.id):
        raise NotEmpty()
    organization.logo_media_id = None
    current_session().flush()
    for model in (Upload, MediaResource):
        current_session().execute(delete(model).where(model.organization_id == organization.id))
    current_session().delete(organization)
    current_session().flush()


def add_member(organization: Organization, email: str, role: str, caller: Caller) -> Membership:
    """Make somebody a member whom the caller shares an organization with; superusers take in everybody.

    NotFound for every other address, whether or not it has an account: strangers are invited. AlreadyMember.
    """
    user = find_colleague(email, caller)
    if user is None:
        raise NotFound()
    return create_membership(organization.id, user, role)


def create_membership(organization_id: UUID, user: User, role: str) -> Membership:
    """Make an account a member and spend what it was invited with; AlreadyMember when it is one."""
    mine = (Membership.organization_id == organization_id, Membership.user_id == user.id)
    if current_session().scalar(select(Membership.id).where(*mine)) is not None:
        raise AlreadyMember()
    _delete_invitation(organization_id, user)
    membership = Membership(organization_id=organization_id, user=user, role=role)
    current_session().add(membership)
    current_session().flush()
    return membership


def update_member(membership: Membership, role: str) -> None:
    """Give a locked membership another role; OwnerRequired for the owner's."""
    _require_not_owner(membership)
    membership.role = role
    current_session().flush()


def remove_member(membership: Membership) -> None:
    """End a locked membership, and no token that is in the mail undoes it; OwnerRequired for the owner's."""
    _require_not_owner(membership)
    _delete_invitation(membership.organization_id, membership.user)
    current_session().delete(membership)
    current_session().flush()


def transfer_ownership(organization: Organization, new_owner_id: UUID) -> User:
    """Make a member of a locked organization its owner, and the owner an admin; return the heir's account.

    NotFound when the heir is no member, AlreadyOwner, AccountLocked.
    """
    get_membership(organization.id, new_owner_id)
    # Locked before the membership, as a deletion of the account does it: who is deleted inherits nothing.
    account = get_user(new_owner_id, for_update=True)
    heir = get_membership(organization.id, new_owner_id, for_update=True)
    if heir.role == Role.OWNER:
        raise AlreadyOwner()
    if not account.is_active:
        raise AccountLocked()
    record_change("owner_id", organization.owner_id, new_owner_id)
    get_membership(organization.id, organization.owner_id, for_update=True).role = Role.ADMIN
    # First, because the index allows no second owner within the transaction either.
    current_session().flush()
    heir.role = Role.OWNER
    current_session().flush()
    current_session().refresh(organization, ["owner_id"])
    return account


def notify_new_owner(organization: Organization, account: User, mailer: Mailer, public_url: str) -> None:
    """Write to who has become the owner once the transaction is committed: from then on they pay."""
    text = _NEW_OWNER_EMAIL.format(
        organization=strip_newlines(organization.name), organization_id=organization.id, public_url=public_url
    )
    letter = mailer.compose(account.email, "You are the owner of an organization", text)
    after_commit(lambda: mailer.send(letter))


def _delete_invitation(organization_id: UUID, user: User) -> None:
    address = Invitation.email_key == user.email_key
    current_session().execute(
        delete(Invitation).where(Invitation.organization_id == organization_id, address)
    )


def _require_not_owner(membership: Membership) -> None:
    if membership.role == Role.OWNER:
        raise OwnerRequired()


def _insert_with_slug(organization: Organization, slug: str | None) -> None:
    """Insert the organization; a derived slug makes way when another request takes it first."""
    for _ in range(MAX_ATTEMPTS):
        organization.slug = slug or _choose_slug(organization.name)
        try:
            with current_session().begin_nested():
                current_session().add(organization)
        except IntegrityError:
            if slug:
                break
            continue
        return
    raise SlugTaken()


def _choose_slug(name: str) -> str:
    wanted = slugify(name, "organization")
    # A long slug loses its end to the number, so look for what its beginning can collide with.
    beginning = wanted[: MAX_SLUG_LENGTH - 8]
    taken = query_as_system(select(Organization.slug).where(Organization.slug.startswith(beginning)))
    return make_unique(wanted, set(taken))
