"""Serialize organizations, members and invitations."""

from __future__ import annotations

from marshmallow import fields

from db.models.organizations import Organization
from handlers.schemas.fields import IdentifiedSchema, MediaUrl, Timestamp, Uuid


class OrganizationSchema(IdentifiedSchema):
    """An organization with its owner and the number of its members."""

    name = fields.Raw()
    slug = fields.Raw()
    logo_url = MediaUrl(attribute="logo_media")
    owner_id = Uuid()
    members_count = fields.Raw()
    retention = fields.Function(lambda organization: _build_retention(organization))
    requires_second_factor = fields.Function(lambda organization: organization.second_factor_from is not None)
    second_factor_from = Timestamp()


class MemberSchema(IdentifiedSchema):
    """A membership with the name and address of the user."""

    organization_id = Uuid()
    user_id = Uuid()
    email = fields.Raw(attribute="user.email")
    full_name = fields.Raw(attribute="user.full_name")
    role = fields.Raw()
    has_second_factor = fields.Raw(attribute="user.has_second_factor")


class InvitationSchema(IdentifiedSchema):
    """An open invitation, without its token."""

    organization_id = Uuid()
    email = fields.Raw()
    role = fields.Raw()
    invited_by_id = Uuid()
    expires_at = Timestamp()


def _build_retention(organization: Organization) -> dict[str, int | None]:
    return {
        "uploads_days": organization.retention_uploads_days,
        "rejected_predictions_days": organization.retention_rejected_predictions_days,
        "audit_addresses_days": organization.retention_audit_addresses_days,
    }
