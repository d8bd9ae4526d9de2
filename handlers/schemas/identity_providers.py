"""Serialize identity providers, without their client secrets, their domains, and linked identities."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, IdUrl, Timestamp, Uuid
from studio.accounts.identity_providers.domains import record_name, record_value


class IdentityProviderSchema(IdentifiedSchema):
    """An identity provider."""

    organization_id = Uuid()
    name = fields.Raw()
    issuer = fields.Raw()
    client_id = fields.Raw()
    has_client_secret = fields.Function(lambda provider: provider.client_secret is not None)
    redirect_uri = IdUrl("/api/v1/login/oidc/", "/callback")
    default_role = fields.Raw()
    is_enabled = fields.Raw()
    is_required = fields.Raw()


class IdentityProviderDomainSchema(IdentifiedSchema):
    """A domain with the TXT record that verifies it."""

    organization_id = Uuid()
    identity_provider_id = Uuid()
    domain = fields.Raw()
    verified_at = Timestamp()
    record_name = fields.Function(lambda domain: record_name(domain.domain))
    record_value = fields.Function(lambda domain: record_value(domain.challenge))


class IdentitySchema(IdentifiedSchema):
    """A user of a provider who is linked to an account."""

    organization_id = Uuid()
    identity_provider_id = Uuid()
    issuer = fields.Raw()
    subject = fields.Raw()
    email = fields.Raw()
    last_used_at = Timestamp()
