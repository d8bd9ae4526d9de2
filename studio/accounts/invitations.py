"""Invitations by mail: who holds the token of one proves the address it was sent to, and joins once.

Nothing here tells whoever invites whether an address has an account: the answers, the statements and the
letter are the same.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import and_, delete, func, or_, select

from db.audit import set_actor
from db.base import utc_now
from db.errors import AlreadyMember, Conflict, InvalidToken, PermissionDenied
from db.models.organizations import Invitation, Membership, Organization, Role
from db.models.users import User, email_key
from db.queries.users import find_user_by_email
from db.session import after_commit, current_session
from db.tenancy import Caller
from studio.accounts.identity.mail import Mailer, strip_newlines
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.identity.users import PasswordRequired, create_user
from studio.accounts.organizations import create_membership

LIFETIME = timedelta(days=7)
MAX_OPEN_INVITATIONS = 50

_RANKS = {role: rank for rank, role in enumerate(Role)}
"""0 is the owner, who may give every role."""

_INVITATION_EMAIL = """\
Hello,

{inviter} invites you to the organization {organization} at Sartiq, as {role}.
This token accepts the invitation. It works once, until {expires_at:%d %B %Y, %H:%M} UTC:

{token}

Send it to
{public_url}/api/v1/invitations/accept

Where this address has no account yet, send the password that you want along: it becomes your account.

If you do not know what this is about, ignore this mail: nothing happens.
"""


class TooManyInvitations(Conflict):
    """As many invitations of the organization are open as may be."""

    code = "too_many_invitations"
    default_detail = "Too many invitations of the organization are open"


class InvitationVoid(Conflict):
    """Whoever invited was removed, locked or demoted since, and could not give the role any more."""

    code = "invitation_void"
    default_detail = "Whoever sent the invitation may no longer invite in this role"


def create_invitation(
    organization: Organization, email: str, role: str, inviter: Caller, mailer: Mailer, public_url: str
) -> Invitation:
    """Invite an address to a locked organization and mail it the token once the transaction is committed.

    An open invitation of the address is replaced: its token dies. PermissionDenied for a role above the
    inviter's, AlreadyMember, TooManyInvitations.
    """
    if not inviter.is_superuser and not _can_grant(inviter.roles[organization.id], role):
        raise PermissionDenied()
    key, now, token = email_key(email), utc_now(), generate_token("iv")
    members = select(Membership.id).join(User, User.id == Membership.user_id)
    ours = Membership.organization_id == organization.id
    if current_session().scalar(members.where(ours, User.email_key == key)) is not None:
        raise AlreadyMember()
    of_organization = Invitation.organization_id == organization.id
    superseded = or_(Invitation.email_key == key, Invitation.expires_at < now)
    current_session().execute(delete(Invitation).where(of_organization, superseded))
    if (
        current_session().scalar(select(func.count(Invitation.id)).where(of_organization)) or 0
    ) >= MAX_OPEN_INVITATIONS:
        raise TooManyInvitations()
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
    text = _INVITATION_EMAIL.format(
        inviter=inviter.email,
        organization=strip_newlines(organization.name),
        role=role,
        expires_at=invitation.expires_at,
        token=token,
        public_url=public_url,
    )
    letter = mailer.compose(invitation.email, "An invitation to Sartiq", text)
    after_commit(lambda: mailer.send(letter))
    return invitation


def accept_invitation(
    token: str, password: str | None, full_name: str | None, inviting_roles: Collection[str]
) -> Membership:
    """Spend a mailed token: its address joins, with a new account where it has none.

    `inviting_roles` are those that may invite. InvalidToken when the token is unknown, spent or too old, or
    the account is locked; InvitationVoid when the inviter could not invite any more; PasswordRequired and
    PasswordTooCommon for a new account, AlreadyMember.
    """
    named = (Invitation.token_hash == hash_token(token), Invitation.expires_at > utc_now())
    organization = select(Organization.id).join(Invitation, Invitation.organization_id == Organization.id)
    # In the order in which whoever invites locks them: the organization, then its invitation.
    current_session().scalar(organization.where(*named).with_for_update(of=Organization))
    invitation = current_session().scalar(select(Invitation).where(*named).with_for_update())
    if invitation is None:
        raise InvalidToken()
    _require_inviter(invitation, inviting_roles)
    # Locked, or the account could be deleted before it joins.
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
    here = and_(Membership.user_id == User.id, Membership.organization_id == invitation.organization_id)
    inviter = (
        current_session()
        .execute(
            select(User.is_superuser, Membership.role)
            .outerjoin(Membership, here)
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
