"""Identity providers of organizations (OpenID Connect), their domains, linked identities and open sign-ins.

Client secrets are encrypted. State and codes of sign-ins are stored as hashes only.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Identified, utc_now


class IdentityProvider(Identified):
    """A row is an OpenID provider whose users can sign in to one organization.

    The issuer never changes: identities belong to it. `is_required` ends the access of the members, but the
    owner, in other sessions: a trigger of the database copies it to `Membership.provider_only`.
    """

    __tablename__ = "identity_providers"

    organization_id: Mapped[UUID] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(120))
    issuer: Mapped[str] = mapped_column(String(500))
    client_id: Mapped[str] = mapped_column(String(255))
    client_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    client_secret_key: Mapped[str | None] = mapped_column(String(16), index=True)
    """Names the key of the encryption without revealing it."""
    default_role: Mapped[str | None] = mapped_column(String(20))
    """The role of new members; null if a sign-in makes no members."""
    is_enabled: Mapped[bool] = mapped_column(default=True)
    is_required: Mapped[bool] = mapped_column(default=False)


class IdentityProviderDomain(Identified):
    """A row is a domain of e-mail addresses. It counts once it is verified, for one organization only."""

    __tablename__ = "identity_provider_domains"
    __table_args__ = (
        UniqueConstraint("identity_provider_id", "domain"),
        Index(
            "uq_identity_provider_domains_verified",
            "domain",
            unique=True,
            postgresql_where=text("verified_at IS NOT NULL"),
        ),
    )

    organization_id: Mapped[UUID] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), index=True
    )
    identity_provider_id: Mapped[UUID] = mapped_column(
        ForeignKey("identity_providers.id", ondelete="CASCADE")
    )
    domain: Mapped[str] = mapped_column(String(253))
    challenge: Mapped[str] = mapped_column(String(64))
    """Random text that the TXT record must have. It is public."""
    verified_at: Mapped[datetime | None]


class UserIdentity(Identified):
    """A row links an account to a user of a provider, whom issuer and subject name; e-mail addresses do not.

    Deleting it ends its sessions.
    """

    __tablename__ = "user_identities"
    __table_args__ = (UniqueConstraint("identity_provider_id", "subject"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    organization_id: Mapped[UUID] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), index=True
    )
    identity_provider_id: Mapped[UUID] = mapped_column(
        ForeignKey("identity_providers.id", ondelete="CASCADE")
    )
    issuer: Mapped[str] = mapped_column(String(500))
    subject: Mapped[str] = mapped_column(String(255))
    email: Mapped[str | None] = mapped_column(String(320))
    """The address that the provider named at the last sign-in, for people."""
    last_used_at: Mapped[datetime] = mapped_column(default=utc_now)


class ProviderSignIn(Identified):
    """A row is one sign-in through a provider: from its start until its code is exchanged, or it expires.

    The columns from `code_hash` on are null until the provider has confirmed who the user is.
    """

    __tablename__ = "provider_sign_ins"

    identity_provider_id: Mapped[UUID] = mapped_column(
        ForeignKey("identity_providers.id", ondelete="CASCADE"), index=True
    )
    state_hash: Mapped[str] = mapped_column(String(64), unique=True)
    client_state: Mapped[str] = mapped_column(String(128))
    """The state of the client that started the sign-in, which it gets back with the code."""
    code_challenge: Mapped[str] = mapped_column(String(43))
    expires_at: Mapped[datetime] = mapped_column(index=True)
    code_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    subject: Mapped[str | None] = mapped_column(String(255))
    email: Mapped[str | None] = mapped_column(String(320))
    """The address, only if the provider says that it has verified it."""
    full_name: Mapped[str | None] = mapped_column(String(200))

    identity_provider: Mapped[IdentityProvider] = relationship(lazy="raise")
