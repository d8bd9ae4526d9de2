"""The change feed, which triggers write, and what they leave to a periodic task; see `db/change_feed/`."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import IS_PERSONAL, TRIGGER_MAINTAINED, Base, utc_now

IS_OF_ORGANIZATION = text("organization_id IS NOT NULL")


class ChangeKind(StrEnum):
    """What happened to a resource."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


class Change(Base):
    """A row is one change of one resource, in the transaction that made it.

    It has no foreign keys because it outlives its resource and its tenant. `owner_id` is set for personal
    resources only, so each row is in exactly one of the indexes.
    """

    __tablename__ = "changes"
    __table_args__ = (
        Index(
            "ix_changes_organization",
            "organization_id",
            "xid",
            "sequence",
            postgresql_where=IS_OF_ORGANIZATION,
        ),
        Index("ix_changes_owner", "owner_id", "xid", "sequence", postgresql_where=IS_PERSONAL),
        {"info": {TRIGGER_MAINTAINED: True}},
    )

    sequence: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    xid: Mapped[int] = mapped_column(BigInteger, default=0)
    """The number of the transaction."""
    organization_id: Mapped[UUID | None]
    owner_id: Mapped[UUID | None]
    resource_type: Mapped[str] = mapped_column(String(40))
    resource_id: Mapped[UUID]
    external_id: Mapped[str | None] = mapped_column(String(128))
    change: Mapped[str] = mapped_column(String(10))
    changed_at: Mapped[datetime] = mapped_column(default=utc_now)


class PendingTouch(Base):
    """A row is a resource whose `updated_at` a trigger could not move: another transaction had locked it.

    A periodic task moves it (`db/change_feed/queries.py`).
    """

    __tablename__ = "pending_touches"
    __table_args__ = ({"info": {TRIGGER_MAINTAINED: True}},)

    entry: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    table_name: Mapped[str] = mapped_column(String(40))
    row_id: Mapped[UUID]
