"""The metadata of all resources as rows, maintained by triggers, so that lists can be filtered by it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import TRIGGER_MAINTAINED, Base


class MetadataEntry(Base):
    """A row is one key-value pair of a product, shooting, look or shot.

    A B-tree of pairs is used instead of an index of JSON documents: with row-level security, PostgreSQL uses
    an index only for operators that cannot leak, such as the equality of texts.
    """

    __tablename__ = "metadata_entries"
    __table_args__ = (
        Index("ix_metadata_entries_pair", "pair", "scope_id", "resource_id"),
        {"info": {TRIGGER_MAINTAINED: True}},
    )

    resource_id: Mapped[UUID] = mapped_column(primary_key=True)
    """The row that has the pair. There is no foreign key, because it is in one of several tables."""
    pair: Mapped[str] = mapped_column(String(541), primary_key=True)
    """Key, colon and value; a key contains no colon."""
    scope_id: Mapped[UUID]
    """The organization, or the owner of a personal row."""
    public: Mapped[bool]
    """Whether the row is public."""
