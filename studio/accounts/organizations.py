"""Create and delete organizations, and add, update and remove their members.

The handler has checked the caller's permission. Memberships change only while the organization or the
membership is locked, so that an organization always has exactly one owner.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, update

from db.audit import insert_event, record_change
from db.base import new_id, utc_now
from db.caller import Caller, extend_role_to
from db.errors import AlreadyMember, Conflict, NotFound
from db.models.audit import ActorType, Outcome
from db.models.media import MediaResource, Upload
from db.models.organizations import Invitation, Membership, Organization, Role
from db.models.usage import UsageRecord
from db.models.users import AccountDeletion, User
from db.queries.organizations import get_membership, has_records
from db.queries.users import find_colleague, get_user, lock_for_count
from db.session import as_system, current_session, query_as_system
from studio.catalog.slugs import insert_with_slug
from studio.mail.emails import Email, as_text
from studio.mail.mailer import Mailer

MAX_OWNED = 20
SECOND_FACTOR_NOTICE = timedelta(days=14)
"""How long members have to add a second factor after their organization has required one."""


class NotEmpty(Conflict):
    """The organization cannot be deleted: it still has records."""

    code = "not_empty"
    default_detail = "The organization still has resources: delete them first"


class OwnerRequired(Conflict):
    """The owner cannot lose the role or the membership: an organization always has an owner."""

    code = "owner_required"
    default_detail = "The owner cannot be changed or removed: transfer the ownership first"


class AlreadyOwner(Conflict):
    """The ownership cannot be transferred: the account is the owner already."""

    code = "already_owner"
    default_detail = "The account already owns the organization"


class AccountLocked(Conflict):
    """The ownership cannot be transferred: the account is deactivated."""

    code = "account_locked"
    default_detail = "The account is locked"


class TooManyOrganizations(Conflict):
    """The account owns the maximum number of organizations."""

    code = "too_many_organizations"
    default_detail = f"An account owns at most {MAX_OWNED} organizations: delete or transfer one first"


_SECOND_FACTOR_TEXT = """\
The organization "{organization}" at Sartiq requires a second factor for sign-ins.
From {start:%d %B %Y, %H:%M} UTC on, your account needs an authenticator app or a passkey to use it.
"""
_SUSPENDED_TEXT = """\
The organization "{organization}" at Sartiq is suspended. Its members and API keys cannot use it, its links
and public images rest, and its pending generations are canceled and refunded. Nothing was deleted.

Answer to this e-mail to have it resumed.
"""
_RESUMED_TEXT = """\
The organization "{organization}" at Sartiq can be used again. Its API keys, links and public images work as
before. Generations and imports that ended stay ended: start them again.
"""
_NEW_OWNER_TEXT = """\
You are now the owner of the organization "{organization}" at Sartiq.
From now on your plan pays for its generations. The previous owner stays as an admin.
"""


def create_organization(name: str, slug: str | None, owner_id: UUID) -> Organization:
    """Create an organization with its owner as the only member.

    Args:
        name: The name.
        slug: The slug, or None to derive a free one from the name.
        owner_id: The user who becomes the owner.

    Raises:
        TooManyOrganizations: The user owns `MAX_OWNED` organizations.
        SlugTaken: Another organization has the slug.
    """
    # Locked, so that concurrent requests cannot exceed the maximum.
    lock_for_count(owner_id)
    _require_owner_capacity(owner_id)
    organization = Organization(id=new_id(), name=name, slug=slug, logo_media=None)
    extend_role_to(organization.id)
    insert_with_slug(organization, "organization")
    current_session().add(Membership(organization_id=organization.id, user_id=owner_id, role=Role.OWNER))
    current_session().flush()
    current_session().refresh(organization, ["owner_id", "members_count"])
    return organization


def delete_organization(organization: Organization) -> None:
    """Delete a locked organization with its memberships, uploads and unreferenced images.

    Raises:
        NotEmpty: The organization has records.
    """
    if has_records(organization.id):
        raise NotEmpty()
    organization.logo_media_id = None
    current_session().flush()
    for model in (Upload, MediaResource):
        current_session().execute(delete(model).where(model.organization_id == organization.id))
    with as_system():
        current_session().execute(delete(UsageRecord).where(UsageRecord.organization_id == organization.id))
    current_session().delete(organization)
    current_session().flush()


def add_member(organization: Organization, email: str, role: str, caller: Caller) -> Membership:
    """Add a user as a member.

    The caller must share an organization with the user; superusers can add every user. All other addresses
    get the same error, whether or not they have an account: they need an invitation.

    Raises:
        NotFound: The address does not belong to such a user.
        AlreadyMember: The user is a member.
    """
    user = find_colleague(email, caller)
    if user is None:
        raise NotFound(value=email)
    return create_membership(organization.id, user, role)


def create_membership(organization_id: UUID, user: User, role: str) -> Membership:
    """Make a user a member and delete the invitation of the user's address.

    Raises:
        AlreadyMember: The user is a member.
    """
    existing = select(Membership.id).where(
        Membership.organization_id == organization_id, Membership.user_id == user.id
    )
    if current_session().scalar(existing) is not None:
        raise AlreadyMember()
    _delete_invitation(organization_id, user)
    owner = (Membership.organization_id == organization_id, Membership.role == Role.OWNER)
    suspended_at = current_session().scalar(select(Membership.suspended_at).where(*owner))
    membership = Membership(organization_id=organization_id, user=user, role=role, suspended_at=suspended_at)
    required = select(Organization.second_factor_from).where(Organization.id == organization_id)
    membership.second_factor_from = current_session().scalar(required)
    current_session().add(membership)
    current_session().flush()
    _touch(organization_id)
    return membership


def update_member(membership: Membership, role: str) -> None:
    """Change the role of a locked membership.

    Raises:
        OwnerRequired: The member is the owner.
    """
    _require_not_owner(membership)
    membership.role = role
    current_session().flush()


def remove_member(membership: Membership) -> None:
    """Delete a locked membership.

    An invitation of the same address is deleted too, so that its token cannot undo this.

    Raises:
        OwnerRequired: The member is the owner.
    """
    _require_not_owner(membership)
    _delete_invitation(membership.organization_id, membership.user)
    current_session().delete(membership)
    current_session().flush()
    _touch(membership.organization_id)


def transfer_ownership(organization: Organization, new_owner_id: UUID) -> User:
    """Make a member of a locked organization its owner, and the previous owner an admin.

    Returns:
        The account of the new owner.

    Raises:
        NotFound: The account is not a member.
        AlreadyOwner: The account is the owner.
        AccountLocked: The account is deactivated, or its deletion is scheduled.
        TooManyOrganizations: The account owns `MAX_OWNED` organizations.
    """
    get_membership(organization.id, new_owner_id)
    # The account is locked before the membership, in the same order as by the deletion of an account.
    account = get_user(new_owner_id, for_update=True)
    new_owner = get_membership(organization.id, new_owner_id, for_update=True)
    if new_owner.role == Role.OWNER:
        raise AlreadyOwner()
    scheduled = select(AccountDeletion.id).where(AccountDeletion.user_id == account.id)
    if not account.is_active or query_as_system(scheduled):
        raise AccountLocked()
    _require_owner_capacity(account.id)
    record_change("owner_id", organization.owner_id, new_owner_id)
    get_membership(organization.id, organization.owner_id, for_update=True).role = Role.ADMIN
    # Flushed first: the unique index allows no second owner, not even within the transaction.
    current_session().flush()
    new_owner.role = Role.OWNER
    current_session().flush()
    _touch(organization.id)
    current_session().refresh(organization, ["owner_id", "updated_at"])
    return account


def suspend_organization(organization_id: UUID, mailer: Mailer | None) -> bool:
    """Suspend an organization: from the next request on, its members and API keys cannot use it.

    Its links and publications rest, its pending generations are canceled and its imports end. Nothing is
    deleted. The owner gets an e-mail. The transaction needs the role of the system.

    Returns:
        Whether it was not suspended before.

    Raises:
        NotFound: The organization does not exist.
    """
    organization = _set_suspension(organization_id, utc_now())
    if organization is not None and mailer is not None:
        _notify_owner(organization, mailer, "organization_suspended", "is suspended", _SUSPENDED_TEXT)
    return organization is not None


def resume_organization(organization_id: UUID, mailer: Mailer | None) -> bool:
    """End the suspension of an organization. What has been canceled stays canceled.

    Returns:
        Whether it was suspended.

    Raises:
        NotFound: The organization does not exist.
    """
    organization = _set_suspension(organization_id, None)
    if organization is not None and mailer is not None:
        _notify_owner(organization, mailer, "organization_resumed", "can be used again", _RESUMED_TEXT)
    return organization is not None


def _set_suspension(organization_id: UUID, at: datetime | None) -> Organization | None:
    """Suspend or resume an organization in all its memberships; return it, None if nothing changes."""
    # Locked, as by each change of its members: a new member gets the state of the owner.
    locked = select(Organization).where(Organization.id == organization_id).with_for_update()
    organization: Organization | None = current_session().scalar(locked)
    if organization is None:
        raise NotFound(value=organization_id)
    changed = update(Membership).where(
        Membership.organization_id == organization_id, Membership.suspended_at.is_not(None) == (at is None)
    )
    # The memberships look the same, so `updated_at` keeps its value in spite of `onupdate`.
    changed = changed.values(suspended_at=at, updated_at=Membership.updated_at)
    if not current_session().execute(changed.returning(Membership.id)).all():
        return None
    action = "resume_organization" if at is None else "suspend_organization"
    target = {"target_type": "organization", "target_id": organization_id, "changes": []}
    # There is no request: the id is new.
    who = {"organization_id": organization_id, "actor_type": ActorType.OPERATOR, "request_id": new_id().hex}
    insert_event({"action": action, "outcome": Outcome.SUCCEEDED, **who, **target})
    return organization


def _notify_owner(organization: Organization, mailer: Mailer, kind: str, state: str, text: str) -> None:
    owner = get_user(organization.owner_id)
    mailer.send(
        Email(
            kind=kind,
            recipient=owner.email,
            subject=f"Your organization {state}",
            text=text.format(organization=as_text(organization.name)),
            label="Sign in",
            url=mailer.sign_in_url,
        )
    )


def _touch(organization_id: UUID) -> None:
    """Move `updated_at` of an organization, whose representation has the owner and the number of members."""
    of_id = Organization.id == organization_id
    touched = update(Organization).where(of_id).values(updated_at=utc_now())
    current_session().execute(touched.execution_options(synchronize_session=False))


def require_second_factor(organization: Organization, is_required: bool, mailer: Mailer | None) -> bool:
    """Require a second factor of the members of a locked organization, or end that.

    The requirement starts after `SECOND_FACTOR_NOTICE`, and members get an e-mail. If it is required already,
    nothing changes.

    Returns:
        Whether e-mails were sent.
    """
    if is_required == (organization.second_factor_from is not None):
        return False
    organization.second_factor_from = utc_now() + SECOND_FACTOR_NOTICE if is_required else None
    copied = update(Membership).where(Membership.organization_id == organization.id)
    # Representations of members do not have the column.
    values = {"second_factor_from": organization.second_factor_from, "updated_at": Membership.updated_at}
    current_session().execute(copied.values(values).execution_options(synchronize_session=False))
    if not is_required or mailer is None:
        return False
    _announce_requirement(organization, mailer)
    return True


def _announce_requirement(organization: Organization, mailer: Mailer) -> None:
    members = select(User.email).join(Membership, Membership.user_id == User.id)
    members = members.where(Membership.organization_id == organization.id, User.is_active.is_(True))
    text = _SECOND_FACTOR_TEXT.format(
        organization=as_text(organization.name), start=organization.second_factor_from
    )
    for email in current_session().scalars(members).all():
        mailer.send(
            Email(
                kind="second_factor_required",
                recipient=email,
                subject="Your organization requires a second factor",
                text=text,
                label="Add a second factor",
                url=f"{mailer.public_url}/review#/security",
                closing="If your account has one already, there is nothing to do.",
            )
        )


def notify_new_owner(organization: Organization, account: User, mailer: Mailer) -> None:
    """Tell the new owner by e-mail that their plan pays from now on."""
    mailer.send(
        Email(
            kind="new_owner",
            recipient=account.email,
            subject="You are the owner of an organization",
            text=_NEW_OWNER_TEXT.format(organization=as_text(organization.name)),
            label="Sign in",
            url=mailer.sign_in_url,
            closing="If you do not want that, transfer the organization to another member.",
        )
    )


def _delete_invitation(organization_id: UUID, user: User) -> None:
    address = Invitation.email_key == user.email_key
    current_session().execute(
        delete(Invitation).where(Invitation.organization_id == organization_id, address)
    )


def _require_owner_capacity(user_id: UUID) -> None:
    """Check that a locked user may own another organization."""
    owned = select(Membership.id).where(Membership.user_id == user_id, Membership.role == Role.OWNER)
    # The caller sees only their own organizations, and may transfer one to a user with others.
    if len(query_as_system(owned)) >= MAX_OWNED:
        raise TooManyOrganizations(limit=MAX_OWNED)


def _require_not_owner(membership: Membership) -> None:
    if membership.role == Role.OWNER:
        raise OwnerRequired()
