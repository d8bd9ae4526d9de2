"""Invitations to organizations."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.caller import current_caller
from db.models.organizations import Invitation
from db.queries import organizations as query
from db.session import current_session
from handlers.common.context import current_settings
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import ROLES, Permission, authenticates_itself, requires
from handlers.common.preconditions import require_etag_match
from handlers.common.reads import Reading, Rows, read_permission_in
from handlers.common.responses import ApiResponse, created, no_content
from handlers.pipeline.admission.attempt_limits import consume_mail_quota, limits_invalid_tokens
from handlers.schemas.organizations import InvitationSchema, MemberSchema
from studio.accounts import invitations
from studio.mail.mailer import get_mailer

INVITING_ROLES = frozenset(role for role, granted in ROLES.items() if Permission.INVITATIONS_WRITE in granted)
INVITATION_ROWS = Rows(Invitation, InvitationSchema)
INVITATIONS = ListQuery(Invitation, InvitationSchema, parent={"organization_id": Invitation.organization_id})


list_invitations = Page(INVITATIONS, Permission.INVITATIONS_READ)


@requires(Permission.INVITATIONS_WRITE)
def create_invitation(organization_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Create an invitation and send it by mail."""
    organization, settings = query.get_organization(organization_id, for_update=True), current_settings()
    invitation = invitations.create_invitation(
        organization,
        body["email"],
        body["role"],
        current_caller(),
        get_mailer(settings),
    )
    consume_mail_quota()
    location = f"/api/v1/organizations/{organization.id}/invitations/{invitation.id}"
    return created(invitation, InvitationSchema, location)


@requires(Permission.INVITATIONS_READ)
def get_invitation(organization_id: UUID, invitation_id: UUID) -> Reading[ApiResponse]:
    """Return an invitation."""
    yield from read_permission_in(organization_id)
    return (yield from INVITATION_ROWS.ok(invitation_id, id=invitation_id, organization_id=organization_id))


@requires(Permission.INVITATIONS_WRITE)
def delete_invitation(organization_id: UUID, invitation_id: UUID) -> ApiResponse:
    """Delete an invitation; its token becomes invalid."""
    organization = query.get_organization(organization_id, for_update=True)
    invitation = query.get_invitation(organization.id, invitation_id, for_update=True)
    require_etag_match(invitation, InvitationSchema)
    current_session().delete(invitation)
    return no_content()


@authenticates_itself
@limits_invalid_tokens
def accept_invitation(body: dict[str, Any]) -> ApiResponse:
    """Accept an invitation with its token; creates the account if the address has none."""
    member = invitations.accept_invitation(
        body["token"], body.get("password"), body.get("full_name"), INVITING_ROLES
    )
    location = f"/api/v1/organizations/{member.organization_id}/members/{member.user_id}"
    return created(member, MemberSchema, location)
