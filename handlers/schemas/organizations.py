"""How organizations, their members and those who are to be members look outside."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, Identifier, Moment, PictureAddress


class OrganizationSchema(IdentifiedSchema):
    """An organization with its owner and the number of its members."""

    name = fields.Raw()
    slug = fields.Raw()
    logo_url = PictureAddress(attribute="logo_media")
    owner_id = Identifier()
    members_count = fields.Raw()


class MemberSchema(IdentifiedSchema):
    """A membership with the person behind it."""

    organization_id = Identifier()
    user_id = Identifier()
    email = fields.Raw(attribute="user.email")
    full_name = fields.Raw(attribute="user.full_name")
    role = fields.Raw()


class InvitationSchema(IdentifiedSchema):
    """An open invitation; nothing of its token."""

    organization_id = Identifier()
    email = fields.Raw()
    role = fields.Raw()
    invited_by_id = Identifier()
    expires_at = Moment()
