"""Base classes of the models: naming convention, column types, ids and index helpers.

This module knows no particular model and opens no connection.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, cast
from uuid import UUID

from sqlalchemy import (
    JSON,
    CursorResult,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    Result,
    String,
    TextClause,
    event,
    inspect,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, PassiveFlag, mapped_column
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.types import TypeDecorator

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

TRIGGER_MAINTAINED = "derived"
"""A key in a table's `info`: triggers derive its rows from other tables, so code does not write them."""

# JSON, not JSONB: JSONB rejects U+0000, which keys of free-form objects may contain.
Json = JSON()

_id_lock = threading.Lock()
_last_id_time = 0
_deterministic_start: int | None = None


def utc_now() -> datetime:
    """Return the current time as an aware datetime in UTC."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562, section 6.2, method 3), greater than all earlier ones of this process.

    Lists sort by creation time and id. Rows of one flush often share a microsecond, so only ids that grow
    keep their order stable.
    """
    global _last_id_time
    # Ids are created in all request threads.
    with _id_lock:
        now = time.time_ns() if _deterministic_start is None else _deterministic_start
        # 48 bits of milliseconds and 12 bits of a fraction of a millisecond: units of about 244 ns.
        moment = (now // 1_000_000 << 12) | ((now % 1_000_000) * 4096 // 1_000_000)
        # The clock may stand still or step back; the id must grow anyway.
        _last_id_time = moment = max(moment, _last_id_time + 1)
    value = (moment >> 12 << 80) | (0x7 << 76) | ((moment & 0xFFF) << 64)
    noise = os.urandom(8) if _deterministic_start is None else hashlib.sha256(moment.to_bytes(8)).digest()[:8]
    value |= (0b10 << 62) | (int.from_bytes(noise) & ((1 << 62) - 1))
    return UUID(int=value)


def use_deterministic_ids(start: datetime) -> None:
    """Make `new_id` return a reproducible sequence of ids in this process. For the mock server only.

    The ids depend on `start` and on the number of ids created so far, not on the clock or on randomness.
    """
    global _deterministic_start, _last_id_time
    with _id_lock:
        _deterministic_start, _last_id_time = int(start.timestamp()) * 1_000_000_000, 0


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime with microseconds. `db.engine` sets the time zone of connections to UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert an aware value to UTC.

        Raises:
            ValueError: The value is naive, so its time zone is unknown.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without time zone cannot be stored")
        return value.astimezone(UTC)


class Base(DeclarativeBase):
    """The declarative base. Relationships are `lazy="raise"`, so a query must load what the caller reads."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar = {datetime: UtcDateTime(), dict[str, Any]: Json, list[Any]: Json}


class Identified(Base):
    """A row with an `id` and the times of its creation and its last change."""

    __abstract__ = True
    internal_columns: ClassVar[frozenset[str]] = frozenset()
    """Columns that no representation contains, such as a lease. Their changes do not move `updated_at`."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id, sort_order=-3)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, sort_order=98)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now, sort_order=99)


def _keep_updated_at(_mapper: object, _connection: object, row: Identified) -> None:
    """Keep `updated_at` in an UPDATE of internal columns only, in spite of its `onupdate`."""
    state = inspect(row)
    # Most models have no internal columns.
    if not row.internal_columns or "updated_at" not in state.dict:
        return
    names = state.committed_state.keys() - row.internal_columns
    passive = PassiveFlag.PASSIVE_NO_INITIALIZE
    if not any(state.get_history(name, passive).has_changes() for name in names):
        flag_modified(row, "updated_at")


event.listen(Identified, "before_update", _keep_updated_at, propagate=True)


class Owned(Identified):
    """A row of a tenant: of an organization or, if `organization_id` is null, of its owner personally.

    Read it only through `db.tenancy`, which applies the tenant filter.
    """

    __abstract__ = True

    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="RESTRICT"), sort_order=-2)
    organization_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("organizations.id", ondelete="RESTRICT"), sort_order=-1
    )


class Labeled(Owned):
    """A tenant's row with the client's own keys: an `external_id` and free key-value pairs."""

    __abstract__ = True

    # Unique per tenant: each table needs `unique_per_tenant(table, "external_id", sparse=True)`.
    external_id: Mapped[str | None] = mapped_column(String(128), sort_order=94)
    # SQLAlchemy reserves the name `metadata`.
    custom_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict, sort_order=95)


class Publishable(Owned):
    """A tenant's row that superusers may make public. System rows are public and have no owner."""

    __abstract__ = True

    owner_id: Mapped[UUID | None] = mapped_column(  # type: ignore[assignment]  # system rows have no owner
        ForeignKey("users.id", ondelete="RESTRICT"), sort_order=-2
    )
    public: Mapped[bool] = mapped_column(default=False, index=True, sort_order=97)


class Archivable(Publishable):
    """A publishable row that is archived instead of deleted while only other tenants refer to it.

    An archived row belongs to no tenant and `db.tenancy` hides it from all callers. It only keeps the
    references of other tenants valid.
    """

    __abstract__ = True

    archived_at: Mapped[datetime | None] = mapped_column(sort_order=96)


IS_PERSONAL = text("organization_id IS NULL")


def tenant_indexes(table: str) -> tuple[Index, Index]:
    """Return the indexes that every list of a tenant's rows uses: by tenant, then newest first."""
    return (
        Index(f"ix_{table}_owner", "owner_id", "organization_id", "created_at", "id"),
        Index(f"ix_{table}_organization", "organization_id", "created_at", "id"),
    )


def sort_indexes(
    table: str, *columns: str, named: bool = False, more: Mapping[str, str | TextClause] | None = None
) -> tuple[Index, ...]:
    """Return the indexes for every sort order of the lists of a growing table.

    Without them the database reads all rows of the tenant to find one page.

    Args:
        table: The name of the table.
        columns: Columns that lists filter by equality. Each gets one index per sort order, so that a filter
            for a rare value does not read all rows without that value.
        named: Whether lists can also be sorted by `name`.
        more: Further sort orders: a column or an SQL expression by its name.
    """
    orders: dict[str, str | TextClause] = {
        "created_at": "created_at",
        "updated_at": "updated_at",
        **({"name": "name"} if named else {}),
        **(more or {}),
    }
    others = {name: key for name, key in orders.items() if name != "created_at"}
    return (
        # Superusers list the rows of all tenants.
        Index(f"ix_{table}_created_at", "created_at", "id"),
        *(
            Index(f"ix_{table}_organization_{name}", "organization_id", key, "id")
            for name, key in others.items()
        ),
        *(
            # Partial, because rows of organizations are never listed by owner.
            Index(f"ix_{table}_owner_{name}", "owner_id", key, "id", postgresql_where=IS_PERSONAL)
            for name, key in others.items()
        ),
        *(
            Index(f"ix_{table}_{column}_{name}", "organization_id", column, key, "id")
            for column in columns
            for name, key in orders.items()
        ),
    )


def unique_per_tenant(table: str, column: str, sparse: bool = False) -> tuple[Index, Index]:
    """Return the unique indexes of a column: per organization and, for personal rows, per owner.

    There are two indexes because NULLs are distinct: one index over `organization_id`
    would not apply to personal rows.

    Args:
        table: The name of the table.
        column: The name of the column.
        sparse: Whether the indexes leave out rows without a value, which then cost nothing to insert.
    """
    is_given = text(f"{column} IS NOT NULL")
    is_personal = text(f"{IS_PERSONAL} AND {is_given}") if sparse else IS_PERSONAL
    everywhere: dict[str, Any] = {"postgresql_where": is_given} if sparse else {}
    return (
        Index(f"uq_{table}_organization_{column}", "organization_id", column, unique=True, **everywhere),
        Index(f"uq_{table}_owner_{column}", "owner_id", column, unique=True, postgresql_where=is_personal),
    )


def affected_one(result: Result[Any]) -> bool:
    """Return whether an UPDATE or DELETE statement affected exactly one row."""
    # The declared return type of `Session.execute` has no `rowcount`; results of these statements do.
    return cast("CursorResult[Any]", result).rowcount == 1


def has_affected(result: Result[Any]) -> bool:
    """Return whether an UPDATE or DELETE statement affected any row."""
    return cast("CursorResult[Any]", result).rowcount > 0
