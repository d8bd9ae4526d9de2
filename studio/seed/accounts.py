"""The demo accounts with their subscriptions and organizations. Reads and writes no database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from db.base import Base, utc_now
from db.models.api_keys import ApiKey
from db.models.identity_providers import IdentityProvider, IdentityProviderDomain, UserIdentity
from db.models.organizations import Invitation, Membership, Organization
from db.models.second_factors import FactorType, SecondFactor
from db.models.subscriptions import Subscription
from db.models.users import User
from studio.seed.rows import get_seed_id, slugify


def build_account_rows(hashed: dict[str, str]) -> Iterator[Base]:
    """Build the demo accounts, their subscriptions and two organizations.

    Args:
        hashed: The password hash of each account, by e-mail address.
    """
    names = {
        "demo@example.com": "Dana Demo",
        "second@example.com": "Sascha Second",
        "admin@example.com": "Ada Admin",
    }
    for number, (email, full_name) in enumerate(names.items(), 1):
        yield User(
            id=get_seed_id(User, number),
            email=email,
            full_name=full_name,
            hashed_password=hashed[email],
            is_superuser=email.startswith("admin"),
            rework_available=10,
        )
    for number in range(1, len(names) + 1):
        # The subscription must not end while the demo data is in use.
        end = utc_now() + timedelta(days=3650)
        yield Subscription(
            id=get_seed_id(Subscription, number),
            user_id=get_seed_id(User, number),
            service_type="SELF_SERVICE",
            tier="ENTERPRISE",
            payment_id=f"pay_demo_{number}",
            start_date=utc_now(),
            end_date=end,
            grace_period_end=end + timedelta(days=7),
            credits_total=1_000_000,
            payment_status="PAID",
        )
    for number, name in enumerate(["Maison Demo", "Studio Second"], 1):
        yield Organization(id=get_seed_id(Organization, number), name=name, slug=slugify(name))
        yield Membership(
            organization_id=get_seed_id(Organization, number), user_id=get_seed_id(User, number), role="owner"
        )
        yield Invitation(
            id=get_seed_id(Invitation, number),
            organization_id=get_seed_id(Organization, number),
            email="noa@example.com",
            role="viewer",
            invited_by_id=get_seed_id(User, number),
            # No token has this hash, so the invitation cannot be accepted.
            token_hash=f"!{number}",
            expires_at=utc_now() + timedelta(days=7),
        )
        # Without codes: sign-ins of the account need the password only.
        yield SecondFactor(
            id=get_seed_id(SecondFactor, number),
            user_id=get_seed_id(User, number),
            type=FactorType.RECOVERY_CODES,
            code_hashes=[],
            confirmed_at=utc_now(),
        )
        yield ApiKey(
            id=get_seed_id(ApiKey, number),
            organization_id=get_seed_id(Organization, number),
            created_by_id=get_seed_id(User, number),
            name="Shop import",
            scopes=["brands:read", "products:read", "products:write"],
            # No secret has this hash, so the key cannot be used.
            secret_hash=f"!{number}",
            last_four="x9Qd",
            expires_at=utc_now() + timedelta(days=90),
        )
        yield from _build_provider_rows(number, ("atelier-nord", "studio-second")[number - 1])


def _build_provider_rows(number: int, name: str) -> Iterator[Base]:
    """Build an identity provider of an organization. Its host does not exist, so sign-ins are impossible."""
    organization_id, provider_id = get_seed_id(Organization, number), get_seed_id(IdentityProvider, number)
    issuer = f"https://login.{name}.example"
    yield IdentityProvider(
        id=provider_id,
        organization_id=organization_id,
        name="Company accounts",
        issuer=issuer,
        client_id="sartiq-studio",
        default_role="member",
    )
    yield IdentityProviderDomain(
        id=get_seed_id(IdentityProviderDomain, number),
        organization_id=organization_id,
        identity_provider_id=provider_id,
        domain=f"{name}.example",
        challenge="3f1c9a7be25d48660b7ad1c4e9f20835aa61d7c20e9b4f58",
    )
    yield UserIdentity(
        id=get_seed_id(UserIdentity, number),
        user_id=get_seed_id(User, number),
        organization_id=organization_id,
        identity_provider_id=provider_id,
        issuer=issuer,
        subject=f"24828976100{number}",
    )
