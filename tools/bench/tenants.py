"""Add the accounts, organizations and rows that a measurement needs, in the running transaction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from db.base import Base, new_id
from db.models import MediaResource, Membership, Organization, User
from db.session import current_session
from studio.accounts.identity.passwords import hash_password

Row = TypeVar("Row", bound=Base)


def add_row(row: Row) -> Row:
    """Add a row, write it and return it."""
    current_session().add(row)
    current_session().flush()
    return row


def add_user(email: str, password: str) -> User:
    """Add an account that can sign in."""
    return add_row(User(email=email, hashed_password=hash_password(password), full_name="Owner"))


@dataclass(frozen=True)
class Tenant:
    """An organization and its owner, who is its only member."""

    organization_id: UUID
    owner_id: UUID

    def add(self, model: type[Row], **columns: Any) -> Row:
        """Add a row of the organization."""
        return add_row(model(owner_id=self.owner_id, organization_id=self.organization_id, **columns))

    def add_media(self) -> MediaResource:
        """Add the row of a stored image. Writes no file."""
        return self.add(
            MediaResource,
            content_hash=hashlib.sha256(new_id().bytes).hexdigest(),
            extension="jpg",
            content_type="image/jpeg",
            file_size=1000,
            width=600,
            height=800,
        )


def add_tenant(owner: User, slug: str) -> Tenant:
    """Add an organization of a user."""
    organization = add_row(Organization(name=slug.replace("-", " ").title(), slug=slug))
    add_row(Membership(organization_id=organization.id, user_id=owner.id, role="owner"))
    return Tenant(organization.id, owner.id)
