"""Organizations, which are the tenants, and their members."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.orm import joinedload

from db.models.organizations import Membership, Organization
from db.queries import organizations as query
from db.queries.users import get_user
from db.session import session
from db.tenancy import current_caller
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, require_fresh
from handlers.current import current_settings
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.preparing import decodes_after
from handlers.references import find_picture
from handlers.schemas.organizations import MemberSchema, OrganizationSchema
from handlers.trying import counts_guesses, own_password_tries
from studio.identity.accounts import require_password
from studio.identity.mail import mailer_for
from studio.organizations import (
    change_role,
    dismiss,
    dissolve,
    found_organization,
    hand_over,
    take_in,
    tell_new_owner,
)

WITH_LOGO = [joinedload(Organization.logo_media)]
EVERY_ORGANIZATION = Listing(
    Organization, OrganizationSchema, searched=(Organization.name,), of_everybody=True
)
ORGANIZATIONS = replace(
    EVERY_ORGANIZATION,
    within={"ids": Organization.id.in_(bindparam("ids", expanding=True))},
    of_everybody=False,
)
MEMBERS = Listing(Membership, MemberSchema, within={"organization_id": Membership.organization_id})


@requires(Permission.ORGANIZATIONS_READ)
def list_organizations(**asked: Any) -> Answer:
    """The caller's organizations; all for superusers."""
    caller = current_caller()
    if caller.is_superuser:
        return EVERY_ORGANIZATION.page(asked)
    return ORGANIZATIONS.page({**asked, "ids": list(caller.roles)})


@requires(Permission.ORGANIZATIONS_CREATE)
@decodes_after(lambda body: None, "logo_url")
def create_organization(body: dict[str, Any]) -> Answer:
    """Make an organization that the caller owns."""
    organization = found_organization(body["name"], body.get("slug"), current_caller().user_id)
    _change(organization, body)
    return created(organization, OrganizationSchema, f"/api/v1/organizations/{organization.id}")


@requires(Permission.ORGANIZATIONS_READ)
def get_organization(organization_id: UUID) -> Answer:
    """One organization."""
    return ok(query.get_organization(organization_id, options=WITH_LOGO), OrganizationSchema)


def _may_change(organization_id: UUID, **_: Any) -> None:
    require_fresh(query.get_organization(organization_id, options=WITH_LOGO), OrganizationSchema)


@requires(Permission.ORGANIZATIONS_WRITE)
@decodes_after(_may_change, "logo_url")
def update_organization(organization_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names."""
    organization = _for_change(organization_id)
    _change(organization, body)
    return ok(organization, OrganizationSchema)


@requires(Permission.ORGANIZATIONS_DELETE)
def delete_organization(organization_id: UUID) -> Answer:
    """Remove an organization that has no records left."""
    dissolve(_for_change(organization_id))
    return no_content()


@requires(Permission.ORGANIZATIONS_TRANSFER)
@counts_guesses(own_password_tries)
def transfer_ownership(organization_id: UUID, body: dict[str, Any]) -> Answer:
    """Make a member the owner; who was it stays as an admin."""
    organization = query.get_organization(organization_id, for_update=True, options=WITH_LOGO)
    settings = current_settings()
    require_password(get_user(current_caller().user_id), body["password"])
    account = hand_over(organization, body["user_id"])
    tell_new_owner(organization, account, mailer_for(settings), settings.public_url)
    return ok(organization, OrganizationSchema)


@requires(Permission.MEMBERS_READ)
def list_members(organization_id: UUID, **asked: Any) -> Answer:
    """The members of one organization."""
    asked["organization_id"] = query.get_organization(organization_id).id
    return MEMBERS.page(asked)


@requires(Permission.MEMBERS_WRITE)
def add_member(organization_id: UUID, body: dict[str, Any]) -> Answer:
    """Take a colleague in."""
    organization = query.get_organization(organization_id, for_update=True)
    member = take_in(organization, body["email"], body["role"], current_caller())
    location = f"/api/v1/organizations/{organization.id}/members/{member.user_id}"
    return created(member, MemberSchema, location)


@requires(Permission.MEMBERS_READ)
def get_member(organization_id: UUID, user_id: UUID) -> Answer:
    """One membership."""
    organization = query.get_organization(organization_id)
    return ok(query.get_membership(organization.id, user_id), MemberSchema)


@requires(Permission.MEMBERS_WRITE)
def update_member(organization_id: UUID, user_id: UUID, body: dict[str, Any]) -> Answer:
    """Give a member another role."""
    member = _member_for_change(organization_id, user_id)
    change_role(member, body["role"])
    return ok(member, MemberSchema)


@requires(Permission.MEMBERS_WRITE)
def remove_member(organization_id: UUID, user_id: UUID) -> Answer:
    """End a membership."""
    dismiss(_member_for_change(organization_id, user_id))
    return no_content()


def _for_change(organization_id: UUID) -> Organization:
    organization = query.get_organization(organization_id, for_update=True, options=WITH_LOGO)
    require_fresh(organization, OrganizationSchema)
    return organization


def _member_for_change(organization_id: UUID, user_id: UUID) -> Membership:
    organization = query.get_organization(organization_id, for_update=True)
    member = query.get_membership(organization.id, user_id, for_update=True)
    require_fresh(member, MemberSchema)
    return member


def _change(organization: Organization, body: dict[str, Any]) -> None:
    apply_changes(organization, body, "name", "slug")
    if "logo_url" in body:
        organization.logo_media = find_picture(body["logo_url"], organization.id)
    session().flush()
