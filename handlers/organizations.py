"""Organizations, which are the tenants, and their members."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload

from db.caller import current_caller
from db.models.organizations import Membership, Organization
from db.queries import organizations as query
from db.queries.users import get_user
from db.session import current_session
from handlers.common.context import current_settings
from handlers.common.list_statements import matches_one_of
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import apply_changes, require_etag_match
from handlers.common.reads import Reading, Rows, read_permission_in
from handlers.common.references import resolve_image
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.pipeline.admission.attempt_limits import (
    consume_mail_quota,
    limits_password_attempts,
    reauthentication_attempts,
)
from handlers.pipeline.prechecks import prefetches_images
from handlers.schemas.organizations import MemberSchema, OrganizationSchema
from studio.accounts import organizations
from studio.accounts.identity.users import require_password
from studio.mail.mailer import find_mailer, get_mailer

LOGO_OPTIONS = [joinedload(Organization.logo_media)]
ORGANIZATION_ROWS = Rows(Organization, OrganizationSchema)
MEMBER_ROWS = Rows(Membership, MemberSchema)
ALL_ORGANIZATIONS = ListQuery(
    Organization, OrganizationSchema, search_columns=(Organization.name,), is_global=True
)
ORGANIZATIONS = replace(
    ALL_ORGANIZATIONS,
    parent={"ids": matches_one_of(Organization.id, "ids")},
    is_global=False,
)
MEMBERS = ListQuery(Membership, MemberSchema, parent={"organization_id": Membership.organization_id})


@requires(Permission.ORGANIZATIONS_READ)
def list_organizations(**params: Any) -> Reading[ApiResponse]:
    """List the caller's organizations; superusers list all."""
    caller = current_caller()
    if caller.is_superuser:
        return (yield from ALL_ORGANIZATIONS.read_page(params))
    return (yield from ORGANIZATIONS.read_page({**params, "ids": [*caller.roles, *caller.withheld]}))


@requires(Permission.ORGANIZATIONS_CREATE)
@prefetches_images(lambda body: None, "logo_url")
def create_organization(body: dict[str, Any]) -> ApiResponse:
    """Create an organization that the caller owns."""
    organization = organizations.create_organization(body["name"], body.get("slug"), current_caller().user_id)
    _apply_body(organization, body)
    return created(organization, OrganizationSchema, f"/api/v1/organizations/{organization.id}")


@requires(Permission.ORGANIZATIONS_READ)
def get_organization(organization_id: UUID) -> Reading[ApiResponse]:
    """Return an organization."""
    yield from read_permission_in(organization_id)
    return (yield from ORGANIZATION_ROWS.ok(organization_id, id=organization_id))


def _precheck_update(organization_id: UUID, **_: Any) -> None:
    require_etag_match(query.get_organization(organization_id, options=LOGO_OPTIONS), OrganizationSchema)


@requires(Permission.ORGANIZATIONS_WRITE)
@prefetches_images(_precheck_update, "logo_url")
def update_organization(organization_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update an organization."""
    organization, settings = _get_for_update(organization_id), current_settings()
    if "requires_second_factor" in body:
        is_required = body["requires_second_factor"]
        if organizations.require_second_factor(organization, is_required, find_mailer(settings)):
            # Switching it on again and again would send e-mails to all members.
            consume_mail_quota()
    _apply_body(organization, body)
    return ok(organization, OrganizationSchema)


@requires(Permission.ORGANIZATIONS_DELETE)
def delete_organization(organization_id: UUID) -> ApiResponse:
    """Delete an organization that has no rows left."""
    organizations.delete_organization(_get_for_update(organization_id))
    return no_content()


@requires(Permission.ORGANIZATIONS_TRANSFER)
@limits_password_attempts(reauthentication_attempts)
def transfer_ownership(organization_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Transfer the ownership to a member; the previous owner becomes an admin."""
    organization = query.get_organization(organization_id, for_update=True, options=LOGO_OPTIONS)
    settings = current_settings()
    require_password(get_user(current_caller().user_id), body["password"])
    account = organizations.transfer_ownership(organization, body["user_id"])
    organizations.notify_new_owner(organization, account, get_mailer(settings))
    return ok(organization, OrganizationSchema)


list_members = Page(MEMBERS, Permission.MEMBERS_READ)


@requires(Permission.MEMBERS_WRITE)
def add_member(organization_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Add a user to an organization."""
    organization = query.get_organization(organization_id, for_update=True)
    member = organizations.add_member(organization, body["email"], body["role"], current_caller())
    location = f"/api/v1/organizations/{organization.id}/members/{member.user_id}"
    return created(member, MemberSchema, location)


@requires(Permission.MEMBERS_READ)
def get_member(organization_id: UUID, user_id: UUID) -> Reading[ApiResponse]:
    """Return a member of an organization."""
    yield from read_permission_in(organization_id)
    return (yield from MEMBER_ROWS.ok(user_id, organization_id=organization_id, user_id=user_id))


@requires(Permission.MEMBERS_WRITE)
def update_member(organization_id: UUID, user_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Change the role of a member."""
    member = _get_member_for_update(organization_id, user_id)
    organizations.update_member(member, body["role"])
    return ok(member, MemberSchema)


@requires(Permission.MEMBERS_WRITE)
def remove_member(organization_id: UUID, user_id: UUID) -> ApiResponse:
    """Remove a member."""
    organizations.remove_member(_get_member_for_update(organization_id, user_id))
    return no_content()


def _get_for_update(organization_id: UUID) -> Organization:
    organization = query.get_organization(organization_id, for_update=True, options=LOGO_OPTIONS)
    require_etag_match(organization, OrganizationSchema)
    return organization


def _get_member_for_update(organization_id: UUID, user_id: UUID) -> Membership:
    organization = query.get_organization(organization_id, for_update=True)
    member = query.get_membership(organization.id, user_id, for_update=True)
    require_etag_match(member, MemberSchema)
    return member


def _apply_body(organization: Organization, body: dict[str, Any]) -> None:
    apply_changes(organization, body, "name", "slug")
    for name, days in body.get("retention", {}).items():
        setattr(organization, f"retention_{name}", days)
    if "logo_url" in body:
        organization.logo_media = resolve_image(body["logo_url"], organization.id)
    current_session().flush()
