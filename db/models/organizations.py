"""Organizations, their members and their open invitations. An organization is a tenant."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    case,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, column_property, deferred, mapped_column, relationship, validates

from db.base import Identified
from db.models.media import MediaResource
from db.models.users import User, email_key


class Role(StrEnum):
    """The role of a member; `studio/accounts/permissions.py` has the permissions of each role."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class Organization(Identified):
    """A row is a tenant whose members share their records.

    `owner_id` and `members_count` are loaded with the row; refresh it after a change of its members.
    """

    __tablename__ = "organizations"

    name: Mapped[str] = mapped_column(String(120))
    slug: Mapped[str] = mapped_column(String(120), unique=True)
    # The tables refer to each other, so `use_alter` adds the key after both tables exist.
    logo_media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media_resources.id", ondelete="SET NULL", use_alter=True), index=True
    )

    # After how many days `studio.review.retention` deletes something; None keeps it.
    retention_uploads_days: Mapped[int | None]
    retention_rejected_predictions_days: Mapped[int | None]
    retention_audit_addresses_days: Mapped[int | None]

    second_factor_from: Mapped[datetime | None]
    """From when on members need a second factor; None if they need none. Each membership has a copy."""

    if TYPE_CHECKING:
        owner_id: Mapped[UUID]
        members_count: Mapped[int]

    logo_media: Mapped[MediaResource | None] = relationship(lazy="raise", foreign_keys=[logo_media_id])
    memberships: Mapped[list[Membership]] = relationship(
        back_populates="organization", lazy="raise", passive_deletes=True, cascade="all, delete-orphan"
    )


class Membership(Identified):
    """A row is one user in one organization; a partial unique index forbids a second owner."""

    __tablename__ = "memberships"
    __table_args__ = (
        UniqueConstraint("organization_id", "user_id"),
        Index(
            "uq_memberships_one_owner",
            "organization_id",
            unique=True,
            postgresql_where=text("role = 'owner'"),
        ),
    )

    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(String(20), default=Role.MEMBER)
    second_factor_from: Mapped[datetime | None]
    """That of the organization, so that the query of each request needs no further table."""
    provider_only: Mapped[bool] = mapped_column(default=False)
    """Whether it counts in sessions of an identity provider only. Triggers set it; code does not write it."""
    # Of the organization, and the same in all its memberships, which each request of a member reads.
    suspended_at: Mapped[datetime | None]

    organization: Mapped[Organization] = relationship(back_populates="memberships", lazy="raise")
    user: Mapped[User] = relationship(lazy="raise")


class Invitation(Identified):
    """A row is an open invitation of an e-mail address to an organization; accepting it deletes the row."""

    __tablename__ = "invitations"
    __table_args__ = (UniqueConstraint("organization_id", "email_key"),)

    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    email: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(String(640), index=True)
    role: Mapped[str] = mapped_column(String(20))
    # CASCADE, because accepting checks that the inviting user may still grant the role.
    invited_by_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(128), unique=True)
    expires_at: Mapped[datetime]

    @validates("email")
    def _set_email_key(self, _name: str, email: str) -> str:
        self.email_key = email_key(email)
        return email


_members = select(func.count()).select_from(Membership).where(Membership.organization_id == Organization.id)
_owner = select(Membership.user_id).where(
    Membership.organization_id == Organization.id, Membership.role == Role.OWNER
)
Organization.members_count = column_property(_members.correlate_except(Membership).scalar_subquery())
Organization.owner_id = column_property(_owner.correlate_except(Membership).scalar_subquery())


def is_suspended(organization_id: Any) -> ColumnElement[bool]:
    """Return the condition that an organization is suspended, by the membership of its owner."""
    owner = (Membership.organization_id == organization_id, Membership.role == Role.OWNER)
    return exists().where(*owner, Membership.suspended_at.is_not(None))


_ranks = {role: rank for rank, role in enumerate(Role)}
_highest = select(Membership.role).where(Membership.user_id == User.id)
_highest = _highest.order_by(case(_ranks, value=Membership.role)).limit(1)
User.role = deferred(_highest.correlate_except(Membership).scalar_subquery())
