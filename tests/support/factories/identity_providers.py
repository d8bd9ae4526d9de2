"""Create identity providers, domains, identities and sign-ins for tests."""

from __future__ import annotations

import secrets
import uuid
from datetime import timedelta
from typing import Any

from db.base import new_id, utc_now
from db.models import (
    IdentityProvider,
    IdentityProviderDomain,
    Organization,
    ProviderSignIn,
    User,
    UserIdentity,
)
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.identity_providers.changes import store_client_secret
from studio.accounts.identity_providers.protocol import challenge_of
from studio.infrastructure.settings import Settings
from tests.support import factories


def make_identity_provider(
    organization: Organization, settings: Settings | None = None, secret: str = "", **values: Any
) -> IdentityProvider:
    """Create an enabled provider, which makes members; with settings, it has a client secret."""
    defaults: dict[str, Any] = {
        "id": new_id(),
        "organization_id": organization.id,
        "name": "Company accounts",
        "issuer": "https://login.example.com",
        "client_id": "sartiq-studio",
        "default_role": "member",
        "is_enabled": True,
        "is_required": False,
    }
    provider = IdentityProvider(**(defaults | values))
    if settings is not None:
        store_client_secret(provider, secret, settings)
    return factories.make(provider)


def make_domain(provider: IdentityProvider, **values: Any) -> IdentityProviderDomain:
    """Create a domain of a provider that is not verified."""
    defaults: dict[str, Any] = {
        "organization_id": provider.organization_id,
        "identity_provider_id": provider.id,
        "domain": f"{uuid.uuid4().hex}.example",
        "challenge": secrets.token_hex(24),
    }
    return factories.make(IdentityProviderDomain(**(defaults | values)))


def make_identity(provider: IdentityProvider, user: User, **values: Any) -> UserIdentity:
    """Link a new user of a provider to an account."""
    defaults: dict[str, Any] = {
        "user_id": user.id,
        "organization_id": provider.organization_id,
        "identity_provider_id": provider.id,
        "issuer": provider.issuer,
        "subject": uuid.uuid4().hex,
        "email": "demo@login.example.com",
    }
    return factories.make(UserIdentity(**(defaults | values)))


def make_sign_in(provider: IdentityProvider, verifier: str, **values: Any) -> str:
    """Create a sign-in that the provider has confirmed, and return its code."""
    code = generate_token("oc")
    defaults: dict[str, Any] = {
        "identity_provider_id": provider.id,
        "state_hash": hash_token(secrets.token_urlsafe()),
        "client_state": secrets.token_urlsafe(32),
        "code_challenge": challenge_of(verifier),
        "expires_at": utc_now() + timedelta(seconds=60),
        "code_hash": hash_token(code),
        "subject": uuid.uuid4().hex,
    }
    factories.make(ProviderSignIn(**(defaults | values)))
    return code
