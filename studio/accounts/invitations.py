"""Invite addresses to organizations by e-mail, and accept invitations with the token that was sent.

The inviter does not learn whether an address has an account: the response, the statements and the message
are the same.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import and_, delete, func, or_, select

from db.audit import set_actor
from db.base import utc_now
from db.caller import Caller
from db.errors import AlreadyMember, Conflict, InvalidToken, PermissionDenied
from db.models.organizations import Invitation, Membership, Organization, Role
from db.models.users import User, email_key
from db.queries.users import find_user_by_email
from db.session import current_session
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.identity.users import PasswordRequired, create_user
from studio.accounts.organizations import create_membership
from studio.mail.emails import Email, as_text
from studio.mail.mailer import Mailer

LIFETIME = timedelta(days=7)
MAX_OPEN_INVITATIONS = 50

_RANKS = {role: rank for rank, role in enumerate(Role)}
"""The rank of each role. 0 is the owner, who can grant every role."""

_TEXT = """\
{inviter} invites you to the organization "{organization}" at Sartiq, as {role}.
The link works once, until {expires_at:%d %B %Y, %H:%M} UTC.
"""
_CLOSING = "If you did not expect this invitation, ignore this e-mail: nothing changes."


class TooManyInvitations(Conflict):
    """The organization has the maximum number of open invitations."""

    code = "too_many_invitations"
    default_detail = f"An organization has at most {MAX_OPEN_INVITATIONS} open invitations"


class InvitationVoid(Conflict):
    """The inviter has been removed, deactivated or demoted and can no longer grant the role."""

    code = "invitation_void"
    default_detail = "The inviter can no longer grant this role: ask for a new invitation"


def create_invitation(
    organization: Organization, email: str, role: str, inviter: Caller, mailer: Mailer
) -> Invitation:
    """Invite an address to a locked organization, and send it a link with the token.

    An open invitation of the address is replaced, and its token stops working.

    Raises:
        PermissionDenied: The role is above the inviter's role.
        AlreadyMember: The address belongs to a member.
        TooManyInvitations: The organization has `MAX_OPEN_INVITATIONS` other open invitations.
    """
    if not inviter.is_superuser and not _can_grant(inviter.roles[organization.id], role):
        raise PermissionDenied()
    key, now, token = email_key(email), utc_now(), generate_token("iv")
    member = (
        select(Membership.id)
        .join(User, User.id == Membership.user_id)
        .where(Membership.organization_id == organization.id, User.email_key == key)
    )
    if current_session().scalar(member) is not None:
        raise AlreadyMember()
    of_organization = Invitation.organization_id == organization.id
    obsolete = or_(Invitation.email_key == key, Invitation.expires_at < now)
    current_session().execute(delete(Invitation).where(of_organization, obsolete))
    open_count = current_session().scalar(select(func.count(Invitation.id)).where(of_organization)) or 0
    if open_count >= MAX_OPEN_INVITATIONS:
        raise TooManyInvitations(limit=MAX_OPEN_INVITATIONS)
    invitation = Invitation(
        organization_id=organization.id,
        email=email.lower(),
        role=role,
        invited_by_id=inviter.user_id,
        token_hash=hash_token(token),
        expires_at=now + LIFETIME,
    )
    current_session().add(invitation)
    current_session().flush()
    text = _TEXT.format(
        inviter=inviter.email,
        organization=as_text(organization.name),
        role=role,
        expires_at=invitation.expires_at,
    )
    mailer.send(
        Email(
            kind="invitation",
            recipient=invitation.email,
            subject="An invitation to Sartiq",
            text=text,
            label="Accept the invitation",
            url=mailer.link_to("invitation", token),
            closing=_CLOSING,
            expires_at=invitation.expires_at,
        )
    )
    return invitation


def accept_invitation(
    token: str, password: str | None, full_name: str | None, inviting_roles: Collection[str]
) -> Membership:
    """Make the account of an invited address a member. Creates the account if the address has none.

    Args:
        token: The token from the e-mail.
        password: The password of a new account.
        full_name: The name of a new account.
        inviting_roles: The roles that may invite.

    Raises:
        InvalidToken: The token is unknown, used or expired, or the account is deactivated.
        InvitationVoid: The inviter can no longer grant the role.
        PasswordRequired: The address has no account and `password` is None.
        PasswordTooCommon: The password is common or published.
        AlreadyMember: The account is a member.
    """
    is_valid = (Invitation.token_hash == hash_token(token), Invitation.expires_at > utc_now())
    organization = select(Organization.id).join(Invitation, Invitation.organization_id == Organization.id)
    # The organization is locked before its invitation, in the same order as by the creation of an invitation.
    current_session().scalar(organization.where(*is_valid).with_for_update(of=Organization))
    invitation = current_session().scalar(select(Invitation).where(*is_valid).with_for_update())
    if invitation is None:
        raise InvalidToken()
    _require_inviter(invitation, inviting_roles)
    # The lock prevents that the account is deleted before it joins.
    user = find_user_by_email(invitation.email, for_update=True)
    if user is None:
        if password is None:
            raise PasswordRequired()
        user = create_user(invitation.email, password, full_name=full_name)
    if not user.is_active:
        raise InvalidToken()
    set_actor(user)
    return create_membership(invitation.organization_id, user, invitation.role)


def _require_inviter(invitation: Invitation, inviting_roles: Collection[str]) -> None:
    is_member = and_(Membership.user_id == User.id, Membership.organization_id == invitation.organization_id)
    inviter = (
        current_session()
        .execute(
            select(User.is_superuser, Membership.role)
            .outerjoin(Membership, is_member)
            .where(User.id == invitation.invited_by_id, User.is_active.is_(True))
        )
        .one_or_none()
    )
    if inviter is None:
        raise InvitationVoid()
    may_invite = inviter.role in inviting_roles and _can_grant(inviter.role, invitation.role)
    if not may_invite and not inviter.is_superuser:
        raise InvitationVoid()


def _can_grant(own_role: str, role: str) -> bool:
    return _RANKS[Role(own_role)] <= _RANKS[Role(role)]
