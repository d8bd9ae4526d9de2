"""The ground every model stands on: naming convention, column types, ids and the two mixins.

Knows no particular model; nothing here opens a connection.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from datetime import UTC, datetime
from typing import Any, ClassVar, cast
from uuid import UUID

from sqlalchemy import JSON, CursorResult, DateTime, Dialect, ForeignKey, Index, MetaData, Result, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

TRIGGER_MAINTAINED = "derived"
"""In the `info` of a table whose rows triggers make of others: they are not copied, but made again."""

# The textual form on PostgreSQL too: the binary one refuses U+0000, which keys of free objects may hold.
Json = JSON()

_id_lock = threading.Lock()
_last_id_time = 0
_deterministic_start: int | None = None


def utc_now() -> datetime:
    """The current time, aware and in UTC."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """A UUID version 7 (RFC 9562, method 3) that is greater than every one this process made before.

    Rows of one flush often share a microsecond; growing ids keep their order stable all the same.
    """
    global _last_id_time
    with _id_lock:
        now = time.time_ns() if _deterministic_start is None else _deterministic_start
        # 48 bits of milliseconds and 12 bits of a fraction of one: units of about 244 ns.
        moment = (now // 1_000_000 << 12) | ((now % 1_000_000) * 4096 // 1_000_000)
        _last_id_time = moment = max(moment, _last_id_time + 1)
    value = (moment >> 12 << 80) | (0x7 << 76) | ((moment & 0xFFF) << 64)
    noise = os.urandom(8) if _deterministic_start is None else hashlib.sha256(moment.to_bytes(8)).digest()[:8]
    value |= (0b10 << 62) | (int.from_bytes(noise) & ((1 << 62) - 1))
    return UUID(int=value)


def use_deterministic_ids(start: datetime) -> None:
    """Let `new_id` of this process count from a moment on, without clock and chance: for mocks only.

    Whoever makes the same rows in the same order gets the same ids.
    """
    global _deterministic_start, _last_id_time
    with _id_lock:
        _deterministic_start, _last_id_time = int(start.timestamp()) * 1_000_000_000, 0


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime with microseconds, on databases with and without time zones.

    Naive values are refused.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Leave the time zone away where the database cannot store one."""
        return dialect.type_descriptor(DateTime(timezone=dialect.name != "sqlite"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; raise ValueError for a naive value, whose meaning is unknown."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without time zone cannot be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back an aware UTC value."""
        return None if value is None else value.replace(tzinfo=UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Leave what PostgreSQL gives as it is: in our sessions that is aware and in UTC already."""
        return super().result_processor(dialect, coltype) if dialect.name == "sqlite" else None


class Base(DeclarativeBase):
    """The declarative base. Relationships of its models are `lazy="raise"`: what a query needs, it loads."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar = {datetime: UtcDateTime(), dict[str, Any]: Json, list[Any]: Json}


class Identified(Base):
    """A row with an id of its own and the times of its creation and last change."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id, sort_order=-3)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, sort_order=98)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now, sort_order=99)


class Owned(Identified):
    """A row of a tenant: of an organization, or, where `organization_id` is null, of its owner personally.

    Read it only through `db.tenancy`.
    """

    __abstract__ = True

    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="RESTRICT"), sort_order=-2)
    organization_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("organizations.id", ondelete="RESTRICT"), sort_order=-1
    )


class Publishable(Owned):
    """A tenant's row that superusers may publish to everybody. System rows are public and have no owner."""

    __abstract__ = True

    owner_id: Mapped[UUID | None] = mapped_column(  # type: ignore[assignment]  # wider on purpose, see above
        ForeignKey("users.id", ondelete="RESTRICT"), sort_order=-2
    )
    public: Mapped[bool] = mapped_column(default=False, index=True, sort_order=97)


IS_PERSONAL = text("organization_id IS NULL")


def tenant_indexes(table: str) -> tuple[Index, Index]:
    """The indexes that every list of an owned model walks: scope, then newest first."""
    return (
        Index(f"ix_{table}_owner", "owner_id", "organization_id", "created_at", "id"),
        Index(f"ix_{table}_organization", "organization_id", "created_at", "id"),
    )


def sort_indexes(table: str, *columns: str, named: bool = False) -> tuple[Index, ...]:
    """The indexes by which the lists of a growing table are walked in every order of theirs.

    Those of an organization with a value in one of `columns` too. Without them a page would be found by
    reading all rows of the tenant, or all that lack the value.
    """
    orders = ("created_at", "updated_at", *(("name",) if named else ()))
    return (
        # Superusers list the rows of everybody.
        Index(f"ix_{table}_created_at", "created_at", "id"),
        *(Index(f"ix_{table}_organization_{order}", "organization_id", order, "id") for order in orders[1:]),
        *(
            Index(
                f"ix_{table}_owner_{order}",
                "owner_id",
                order,
                "id",
                sqlite_where=IS_PERSONAL,
                postgresql_where=IS_PERSONAL,
            )
            for order in orders[1:]
        ),
        *(
            Index(f"ix_{table}_{column}_{order}", "organization_id", column, order, "id")
            for column in columns
            for order in orders
        ),
    )


def unique_per_tenant(table: str, column: str) -> tuple[Index, Index]:
    """Make a column unique within an organization and, for personal rows, within an owner.

    Two indexes, because both databases hold that NULLs differ: a single one would never bind personal rows.
    """
    return (
        Index(f"uq_{table}_organization_{column}", "organization_id", column, unique=True),
        Index(
            f"uq_{table}_owner_{column}",
            "owner_id",
            column,
            unique=True,
            sqlite_where=IS_PERSONAL,
            postgresql_where=IS_PERSONAL,
        ),
    )


def affected_one(result: Result[Any]) -> bool:
    """Return whether an UPDATE changed one row. It counts them, which the type of `execute` does not tell."""
    return cast("CursorResult[Any]", result).rowcount == 1
