"""The writes of identity providers and their domains.

The handler has checked the permission and locked the organization, so that limits are exact and no member
joins while `is_required` changes.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from db.base import new_id, utc_now
from db.errors import Conflict
from db.models.identity_providers import IdentityProvider, IdentityProviderDomain, UserIdentity
from db.models.users import TokenFamily
from db.queries.statements import get_row
from db.session import as_system, current_session
from studio.accounts.identity_providers.protocol import Client
from studio.infrastructure.encryption import decrypt, encrypt, fingerprint_key
from studio.infrastructure.settings import Settings

MAX_PROVIDERS = 5
MAX_DOMAINS = 20
PURPOSE = "identity provider"
_COLUMNS = ("name", "client_id", "default_role", "is_enabled", "is_required")


class TooManyIdentityProviders(Conflict):
    """The organization has the maximum number of identity providers."""

    code = "too_many_identity_providers"
    default_detail = f"An organization has at most {MAX_PROVIDERS} identity providers: delete one first"


class TooManyDomains(Conflict):
    """The provider has the maximum number of domains."""

    code = "too_many_domains"
    default_detail = f"An identity provider has at most {MAX_DOMAINS} domains: delete one first"


class ProviderSessionRequired(Conflict):
    """The caller has not shown that the provider works."""

    code = "provider_session_required"
    default_detail = (
        "`is_required` can be switched on only in a session from this identity provider, which shows that it "
        "works: sign in through it and repeat the request"
    )


def create_identity_provider(
    organization_id: UUID, body: Mapping[str, Any], settings: Settings
) -> IdentityProvider:
    """Store a new provider of an organization, with its client secret encrypted.

    Raises:
        TooManyIdentityProviders: The organization has `MAX_PROVIDERS` providers.
    """
    require_capacity(organization_id)
    provider = IdentityProvider(
        id=new_id(),
        organization_id=organization_id,
        name=body["name"],
        issuer=body["issuer"],
        client_id=body["client_id"],
        default_role=body.get("default_role"),
        is_enabled=body["is_enabled"],
        is_required=False,
    )
    store_client_secret(provider, body.get("client_secret"), settings)
    current_session().add(provider)
    current_session().flush()
    return provider


def require_capacity(organization_id: UUID) -> None:
    """Check that an organization can have one more provider.

    Raises:
        TooManyIdentityProviders: It has `MAX_PROVIDERS` providers.
    """
    count = select(func.count(IdentityProvider.id)).where(IdentityProvider.organization_id == organization_id)
    if (current_session().scalar(count) or 0) >= MAX_PROVIDERS:
        raise TooManyIdentityProviders(limit=MAX_PROVIDERS)


def get_identity_provider(
    organization_id: UUID, provider_id: UUID, for_update: bool = False
) -> IdentityProvider:
    """Return a provider of an organization that the caller may see.

    Raises:
        NotFound: The organization has no such provider.
    """
    query = select(IdentityProvider).where(
        IdentityProvider.organization_id == organization_id, IdentityProvider.id == provider_id
    )
    return get_row(query, provider_id, for_update)


def update_identity_provider(
    provider: IdentityProvider, body: Mapping[str, Any], session_id: UUID, settings: Settings
) -> None:
    """Set the fields of a request body on a locked provider. A provider that is disabled ends its sessions.

    Args:
        provider: The provider.
        body: The fields; those that are absent keep their values.
        session_id: The session of the caller.
        settings: The settings, whose key encrypts a new client secret.

    Raises:
        ProviderSessionRequired: `is_required` is switched on in a session that is not from this provider.
    """
    if body.get("is_required") and not provider.is_required and not _is_session_of(provider, session_id):
        raise ProviderSessionRequired(pointer="/is_required")
    for name in _COLUMNS:
        if name in body:
            setattr(provider, name, body[name])
    if "client_secret" in body:
        store_client_secret(provider, body["client_secret"], settings)
    current_session().flush()
    if not provider.is_enabled:
        _end_sessions(provider)


def delete_identity_provider(provider: IdentityProvider) -> None:
    """Delete a locked provider with its domains and linked identities, which ends its sessions."""
    current_session().delete(provider)
    current_session().flush()


def add_identity_provider_domain(provider: IdentityProvider, domain: str) -> IdentityProviderDomain:
    """Add a domain that is not verified yet to a locked provider.

    Raises:
        TooManyDomains: The provider has `MAX_DOMAINS` domains.
        DomainTaken: The provider has the domain already.
    """
    count = select(func.count(IdentityProviderDomain.id)).where(
        IdentityProviderDomain.identity_provider_id == provider.id
    )
    if (current_session().scalar(count) or 0) >= MAX_DOMAINS:
        raise TooManyDomains(limit=MAX_DOMAINS)
    row = IdentityProviderDomain(
        organization_id=provider.organization_id,
        identity_provider_id=provider.id,
        domain=domain.lower(),
        challenge=secrets.token_hex(24),
    )
    current_session().add(row)
    current_session().flush()
    return row


def get_domain(provider_id: UUID, domain_id: UUID, for_update: bool = False) -> IdentityProviderDomain:
    """Return a domain of a provider that the caller may see.

    Raises:
        NotFound: The provider has no such domain.
    """
    query = select(IdentityProviderDomain).where(
        IdentityProviderDomain.identity_provider_id == provider_id, IdentityProviderDomain.id == domain_id
    )
    return get_row(query, domain_id, for_update)


def verify_identity_provider_domain(domain: IdentityProviderDomain) -> None:
    """Mark a locked domain as verified; the caller has seen its TXT record, or is a superuser.

    Raises:
        DomainTaken: The domain is verified for another provider.
    """
    domain.verified_at = domain.verified_at or utc_now()
    current_session().flush()


def delete_identity_provider_domain(domain: IdentityProviderDomain) -> None:
    """Delete a locked domain: users with its addresses get no new accounts. Linked identities stay."""
    current_session().delete(domain)
    current_session().flush()


def store_client_secret(provider: IdentityProvider, secret: str | None, settings: Settings) -> None:
    """Set the client secret of a provider, encrypted; None for a public client."""
    if secret is None:
        provider.client_secret = provider.client_secret_key = None
        return
    provider.client_secret = encrypt(settings.secret_key, PURPOSE, provider.id, secret.encode())
    provider.client_secret_key = fingerprint_key(settings.secret_key)


def read_client(provider: IdentityProvider, settings: Settings) -> Client:
    """Return this server as a client of a provider, with the client secret in plain text.

    Raises:
        SecretUnreadable: The secret was encrypted with another SECRET_KEY.
    """
    secret = provider.client_secret
    if secret is not None:
        secret = decrypt(settings.secret_keys, PURPOSE, provider.id, secret)
    return Client(
        issuer=provider.issuer,
        client_id=provider.client_id,
        client_secret=None if secret is None else secret.decode(),
        redirect_uri=build_redirect_uri(settings.public_url, provider.id),
    )


def build_redirect_uri(public_url: str, provider_id: object) -> str:
    """Return the URL that a provider must redirect browsers to."""
    return f"{public_url}/api/v1/login/oidc/{provider_id}/callback"


def _is_session_of(provider: IdentityProvider, session_id: UUID) -> bool:
    query = select(UserIdentity.identity_provider_id).join(
        TokenFamily, TokenFamily.identity_id == UserIdentity.id
    )
    return current_session().scalar(query.where(TokenFamily.id == session_id)) == provider.id


def _end_sessions(provider: IdentityProvider) -> None:
    identities = select(UserIdentity.id).where(UserIdentity.identity_provider_id == provider.id)
    ending = update(TokenFamily).where(TokenFamily.identity_id.in_(identities))
    # The sessions of other accounts.
    with as_system():
        current_session().execute(
            ending.where(TokenFamily.revoked_at.is_(None))
            .values(revoked_at=utc_now())
            .execution_options(synchronize_session=False)
        )
