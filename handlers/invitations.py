"""Invitations to organizations: sent and withdrawn by those who run one, accepted by those who got them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.models.invitations import Invitation
from db.queries import organizations as query
from db.session import session
from db.tenancy import current_caller
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import require_fresh
from handlers.current import current_settings
from handlers.paging import Listing
from handlers.permissions import ROLES, Permission, checks_proof, requires
from handlers.schemas.organizations import InvitationSchema, MemberSchema
from handlers.trying import count_mail, counts_wrong_tokens
from studio import invitations
from studio.identity.mail import mailer_for

INVITING_ROLES = frozenset(role for role, granted in ROLES.items() if Permission.INVITATIONS_WRITE in granted)
INVITATIONS = Listing(Invitation, InvitationSchema, within={"organization_id": Invitation.organization_id})


@requires(Permission.INVITATIONS_READ)
def list_invitations(organization_id: UUID, **asked: Any) -> Answer:
    """The invitations of one organization that were not accepted."""
    asked["organization_id"] = query.get_organization(organization_id).id
    return INVITATIONS.page(asked)


@requires(Permission.INVITATIONS_WRITE)
def create_invitation(organization_id: UUID, body: dict[str, Any]) -> Answer:
    """Invite an address by mail."""
    organization, settings = query.get_organization(organization_id, for_update=True), current_settings()
    invitation = invitations.invite(
        organization,
        body["email"],
        body["role"],
        current_caller(),
        mailer_for(settings),
        settings.public_url,
    )
    count_mail()
    location = f"/api/v1/organizations/{organization.id}/invitations/{invitation.id}"
    return created(invitation, InvitationSchema, location)


@requires(Permission.INVITATIONS_READ)
def get_invitation(organization_id: UUID, invitation_id: UUID) -> Answer:
    """One invitation; its token is in the mail only."""
    organization = query.get_organization(organization_id)
    return ok(query.get_invitation(organization.id, invitation_id), InvitationSchema)


@requires(Permission.INVITATIONS_WRITE)
def delete_invitation(organization_id: UUID, invitation_id: UUID) -> Answer:
    """Withdraw an invitation: its token is good for nothing."""
    organization = query.get_organization(organization_id, for_update=True)
    invitation = query.get_invitation(organization.id, invitation_id, for_update=True)
    require_fresh(invitation, InvitationSchema)
    session().delete(invitation)
    return no_content()


@checks_proof
@counts_wrong_tokens
def accept_invitation(body: dict[str, Any]) -> Answer:
    """Join with a mailed token, in a new account where the address has none."""
    member = invitations.accept(body["token"], body.get("password"), body.get("full_name"), INVITING_ROLES)
    location = f"/api/v1/organizations/{member.organization_id}/members/{member.user_id}"
    return created(member, MemberSchema, location)
