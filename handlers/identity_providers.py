"""Identity providers of organizations (OpenID Connect), and the domains of their users."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.caller import current_caller
from db.models.identity_providers import IdentityProvider, IdentityProviderDomain
from db.models.organizations import Organization
from db.queries import organizations as query
from handlers.common.context import current_session_id, current_settings
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import require_etag_match
from handlers.common.reads import Reading, Rows, read_permission_in
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.pipeline.admission.slots import hold_fetch_slot
from handlers.pipeline.prechecks import Arguments, prechecks_url, runs_before
from handlers.schemas.identity_providers import IdentityProviderDomainSchema, IdentityProviderSchema
from studio.accounts.identity_providers import changes
from studio.accounts.identity_providers.domains import require_record

PROVIDER_ROWS = Rows(IdentityProvider, IdentityProviderSchema)
DOMAIN_ROWS = Rows(IdentityProviderDomain, IdentityProviderDomainSchema)
PROVIDERS = ListQuery(
    IdentityProvider, IdentityProviderSchema, parent={"organization_id": IdentityProvider.organization_id}
)
DOMAINS = ListQuery(
    IdentityProviderDomain,
    IdentityProviderDomainSchema,
    parent={"identity_provider_id": IdentityProviderDomain.identity_provider_id},
)


list_identity_providers = Page(PROVIDERS, Permission.IDENTITY_PROVIDERS_MANAGE)


def _precheck_create(organization_id: UUID, **_: Any) -> None:
    changes.require_capacity(query.get_organization(organization_id).id)


@requires(Permission.IDENTITY_PROVIDERS_MANAGE)
@prechecks_url(_precheck_create, lambda body: body["issuer"])
def create_identity_provider(organization_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Create an identity provider."""
    organization = _lock_organization(organization_id)
    provider = changes.create_identity_provider(organization.id, body, current_settings())
    location = f"/api/v1/organizations/{organization.id}/identity-providers/{provider.id}"
    return created(provider, IdentityProviderSchema, location)


@requires(Permission.IDENTITY_PROVIDERS_MANAGE)
def get_identity_provider(organization_id: UUID, identity_provider_id: UUID) -> Reading[ApiResponse]:
    """Return an identity provider, without its client secret."""
    yield from read_permission_in(organization_id)
    return (
        yield from PROVIDER_ROWS.ok(
            identity_provider_id, id=identity_provider_id, organization_id=organization_id
        )
    )


@requires(Permission.IDENTITY_PROVIDERS_MANAGE)
def update_identity_provider(
    organization_id: UUID, identity_provider_id: UUID, body: dict[str, Any]
) -> ApiResponse:
    """Update an identity provider."""
    provider = _get_for_update(organization_id, identity_provider_id)
    changes.update_identity_provider(provider, body, current_session_id(), current_settings())
    return ok(provider, IdentityProviderSchema)


@requires(Permission.IDENTITY_PROVIDERS_MANAGE)
def delete_identity_provider(organization_id: UUID, identity_provider_id: UUID) -> ApiResponse:
    """Delete an identity provider; its sessions end."""
    changes.delete_identity_provider(_get_for_update(organization_id, identity_provider_id))
    return no_content()


@requires(Permission.IDENTITY_PROVIDERS_MANAGE)
def list_identity_provider_domains(
    organization_id: UUID, identity_provider_id: UUID, **params: Any
) -> Reading[ApiResponse]:
    """List the domains of an identity provider."""
    yield from read_permission_in(organization_id)
    of_organization = {"id": identity_provider_id, "organization_id": organization_id}
    yield from PROVIDER_ROWS.get(identity_provider_id, **of_organization)
    return (yield from DOMAINS.read_page({**params, "identity_provider_id": identity_provider_id}))


@requires(Permission.IDENTITY_PROVIDERS_MANAGE)
def add_identity_provider_domain(
    organization_id: UUID, identity_provider_id: UUID, body: dict[str, Any]
) -> ApiResponse:
    """Add a domain to an identity provider."""
    organization = _lock_organization(organization_id)
    provider = changes.get_identity_provider(organization.id, identity_provider_id, for_update=True)
    domain = changes.add_identity_provider_domain(provider, body["domain"])
    path = f"/api/v1/organizations/{organization.id}/identity-providers/{provider.id}/domains/{domain.id}"
    return created(domain, IdentityProviderDomainSchema, path)


@requires(Permission.IDENTITY_PROVIDERS_MANAGE)
def get_identity_provider_domain(
    organization_id: UUID, identity_provider_id: UUID, domain_id: UUID
) -> Reading[ApiResponse]:
    """Return a domain of an identity provider."""
    yield from read_permission_in(organization_id)
    of_provider = {"organization_id": organization_id, "identity_provider_id": identity_provider_id}
    return (yield from DOMAIN_ROWS.ok(domain_id, id=domain_id, **of_provider))


def _load_domain(
    organization_id: UUID, identity_provider_id: UUID, domain_id: UUID
) -> tuple[str, str] | None:
    """Return the domain and the text of its record; None if no record is needed."""
    organization = query.get_organization(organization_id)
    provider = changes.get_identity_provider(organization.id, identity_provider_id)
    domain = changes.get_domain(provider.id, domain_id)
    is_confirmed = domain.verified_at is not None or current_caller().is_superuser
    # A mock sends nothing to other servers.
    return None if is_confirmed or current_settings().mode == "mock" else (domain.domain, domain.challenge)


def _require_record(arguments: Arguments, record: tuple[str, str] | None) -> Arguments:
    if record is not None:
        with hold_fetch_slot("Too many domains are being verified: wait until one of them is done"):
            require_record(*record, current_settings().dns_servers)
    return arguments


@requires(Permission.IDENTITY_PROVIDERS_MANAGE)
@runs_before(_load_domain, _require_record)
def verify_identity_provider_domain(
    organization_id: UUID, identity_provider_id: UUID, domain_id: UUID
) -> ApiResponse:
    """Verify a domain by its TXT record, or by the word of a superuser."""
    organization = _lock_organization(organization_id)
    provider = changes.get_identity_provider(organization.id, identity_provider_id)
    domain = changes.get_domain(provider.id, domain_id, for_update=True)
    changes.verify_identity_provider_domain(domain)
    return ok(domain, IdentityProviderDomainSchema)


@requires(Permission.IDENTITY_PROVIDERS_MANAGE)
def delete_identity_provider_domain(
    organization_id: UUID, identity_provider_id: UUID, domain_id: UUID
) -> ApiResponse:
    """Delete a domain of an identity provider."""
    organization = _lock_organization(organization_id)
    provider = changes.get_identity_provider(organization.id, identity_provider_id)
    domain = changes.get_domain(provider.id, domain_id, for_update=True)
    require_etag_match(domain, IdentityProviderDomainSchema)
    changes.delete_identity_provider_domain(domain)
    return no_content()


def _lock_organization(organization_id: UUID) -> Organization:
    return query.get_organization(organization_id, for_update=True)


def _get_for_update(organization_id: UUID, provider_id: UUID) -> IdentityProvider:
    organization = _lock_organization(organization_id)
    provider = changes.get_identity_provider(organization.id, provider_id, for_update=True)
    require_etag_match(provider, IdentityProviderSchema)
    return provider
