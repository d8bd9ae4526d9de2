"""Read the usage of an organization, without reading its generations and images.

- **What is recorded**: the credits, generations, failures and stored bytes of each day, once for the whole
  organization and once for each model, member, API key and product (`UsageDimension`). A change counts on the
  day on which it happens, in UTC; only the bytes of a deleted image are subtracted from the day on which it
  was stored. So a day that has passed keeps its numbers when generations are deleted.
- **Storage**: a row of `usage_records` is a change of the usage of one group on one day; the usage is the sum
  over the rows. Triggers write these rows in the transaction that changes a generation or an image
  (`db/migrations/frozen/usage.py`). So they are exact in every snapshot, also after a rollback or a crash.
- **Compaction**: each change appends rows. Updating one total instead would make all writers of an
  organization wait for each other. `compact_usage` adds appended rows to the total in a single statement, so
  a reader sees either the changes or the total.
- **Reading**: a page of products reads the index in the order of the key and stops after the page, so that it
  does not add up the usage of all products.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Date,
    Integer,
    Select,
    Uuid,
    bindparam,
    cast,
    func,
    or_,
    select,
    text,
)

from db.libpq.statements import Query, Row
from db.models.usage import NO_KEY, UsageDimension, UsageRecord

KEY = "organization_id, dimension, key, day, entry"
AMOUNTS = ("credits", "generations", "failures", "storage_bytes")
TOTAL = "'00000000000000000000000000000000'"
"""The `entry` of a compacted record, in SQL."""
MAX_COMPACTED_RECORDS = 50_000
_ADVISORY_LOCK = 5_172_003
"""An arbitrary number; it must differ from the other advisory locks."""

_SUMS = ", ".join(f"sum({name})" for name in AMOUNTS)
_ADDED = ", ".join(f"{name} = usage_records.{name} + excluded.{name}" for name in AMOUNTS)
# One statement, so no snapshot contains both the total and the rows that it replaces. Nothing but the
# compaction changes rows, so the rows that are deleted are those that were selected.
_COMPACT = text(
    f"""
    WITH pending AS (
        SELECT {KEY} FROM usage_records WHERE entry <> {TOTAL} LIMIT :batch_size
    ), deleted AS (
        DELETE FROM usage_records WHERE ({KEY}) IN (SELECT {KEY} FROM pending) RETURNING *
    ), compacted AS (
        INSERT INTO usage_records ({KEY}, {", ".join(AMOUNTS)})
        SELECT organization_id, dimension, key, day, CAST({TOTAL} AS uuid), {_SUMS} FROM deleted
        GROUP BY organization_id, dimension, key, day
        ON CONFLICT ({KEY}) DO UPDATE SET {_ADDED}
    )
    SELECT count(*) FROM deleted
    """  # noqa: S608 - names come from this package
)


class Usage(NamedTuple):
    """Amounts of usage."""

    credits: int
    generations: int
    failures: int
    storage_bytes: int


class UsageGroup(NamedTuple):
    """The usage of a day, or of one model, member, API key or product; `key` is then its id or `NO_KEY`."""

    key: UUID
    day: date | None
    usage: Usage


def total_query(organization_id: UUID, first: date, last: date) -> Query:
    """Return the query of the usage of an organization from the first to the last day: a row of `Usage`."""
    return Query(_build_total(), _bind(organization_id, UsageDimension.DAY, first, last))


def groups_query(
    organization_id: UUID,
    dimension: UsageDimension,
    first: date,
    last: date,
    after: date | UUID | None,
    limit: int,
) -> Query:
    """Return the query of groups of usage, for `parse_groups`, in the order of days or ids.

    Groups without usage are left out.

    Args:
        organization_id: The organization.
        dimension: What to group by.
        first: The first day.
        last: The last day.
        after: The day or the key after which the groups begin; None for the first ones.
        limit: The maximum of groups.
    """
    values = _bind(organization_id, dimension, first, last) | {"rows": limit}
    if after is not None:
        values["after"] = after
    return Query(_build_groups(dimension, after is not None), values)


def parse_groups(dimension: UsageDimension, rows: Iterable[Row]) -> list[UsageGroup]:
    """Return the groups that `groups_query` found."""
    if dimension is UsageDimension.DAY:
        return [UsageGroup(NO_KEY, row[0], Usage(*row[1:])) for row in rows]
    return [UsageGroup(row[0], None, Usage(*row[1:])) for row in rows]


def compact_usage(connection: Connection) -> bool:
    """Add up to `MAX_COMPACTED_RECORDS` appended records to totals; return whether more may be pending.

    The connection must have the system role or own the table. Does nothing while another process compacts.
    """
    if not connection.scalar(select(func.pg_try_advisory_xact_lock(_ADVISORY_LOCK))):
        return False
    return (
        int(connection.scalar(_COMPACT, {"batch_size": MAX_COMPACTED_RECORDS}) or 0) >= MAX_COMPACTED_RECORDS
    )


def _bind(organization_id: UUID, dimension: UsageDimension, first: date, last: date) -> dict[str, Any]:
    return {"organization": organization_id, "dimension": dimension, "first": first, "last": last}


def _sums() -> Sequence[ColumnElement[int]]:
    columns = UsageRecord.__table__.c
    return [cast(func.coalesce(func.sum(columns[name]), 0), BigInteger) for name in AMOUNTS]


def _select_records(*columns: Any) -> Select[Any]:
    return select(*columns, *_sums()).where(
        UsageRecord.organization_id == bindparam("organization", type_=Uuid()),
        UsageRecord.dimension == bindparam("dimension"),
        UsageRecord.day.between(bindparam("first", type_=Date()), bindparam("last", type_=Date())),
    )


@cache
def _build_total() -> Select[Any]:
    return _select_records()


@cache
def _build_groups(dimension: UsageDimension, is_continued: bool) -> Select[Any]:
    column: Any = UsageRecord.day if dimension is UsageDimension.DAY else UsageRecord.key
    groups = _select_records(column).group_by(column).order_by(column)
    groups = groups.having(or_(*(func.sum(amount) != 0 for amount in _amounts())))
    if is_continued:
        groups = groups.where(column > bindparam("after", type_=column.type))
    # Literal SQL: PostgreSQL must know the number of rows to choose the index in the order of the groups.
    return groups.limit(bindparam("rows", type_=Integer, literal_execute=True))


def _amounts() -> Sequence[ColumnElement[int]]:
    columns = UsageRecord.__table__.c
    return [columns[name] for name in AMOUNTS]
