"""Read the change feed of a tenant in pages, and maintain it.

**No change is missed.** A transaction becomes visible at its commit, which may be long after it got its
number and after later transactions have committed. So changes are ordered by the number of their transaction
(xid) and then by a sequence, and a page ends before the oldest transaction that is still open
(`pg_snapshot_xmin`): all earlier ones have ended, so nothing can appear before the position of a reader. A
transaction that stays open delays the feed; it loses nothing.

**A position belongs to one database.** A restored database repeats numbers, or continues after other ones.
`FEED_ID` differs then, and readers start again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    Uuid,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    select,
    text,
    tuple_,
)

from db.change_feed.touched_rows import TOUCHED_TABLES
from db.libpq.statements import Query
from db.models.changes import Change, PendingTouch
from db.session import Database

RETENTION = timedelta(days=30)
"""How long a position is valid."""
DELETION_AGE = RETENTION + timedelta(days=1)
"""The age at which changes are deleted. A transaction that commits late has old changes, so it is greater."""
DELETE_BATCH_SIZE = 2_000


class Position(NamedTuple):
    """A place in the feed, after the change with this transaction and sequence."""

    xid: int
    sequence: int


START = Position(0, 0)


class ChangeRow(NamedTuple):
    """A change, as `changes_query` finds it."""

    resource_type: str
    resource_id: UUID
    external_id: str | None
    change: str
    changed_at: datetime
    xid: int
    sequence: int


_OLDEST_OPEN_XID: ColumnElement[int] = cast(
    cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger
)
_COLUMNS: tuple[Any, ...] = tuple(getattr(Change, name) for name in ChangeRow._fields)

# The identifier of the cluster, because each cluster numbers its transactions, and that of the table, which
# a restored dump creates again.
_IDENTIFIER = "(pg_control_system()).system_identifier || '.' || 'public.changes'::regclass::oid"
FEED_ID = Query(select(literal_column(_IDENTIFIER, Text())), {})
"""Finds an identifier of the numbers in the feed, which differs after the database was restored."""

# One statement: an entry is deleted only if its row was moved, or no longer exists. The UPDATE comes after
# the commit of the transaction that left the entry, whose changes a reader of the new `updated_at` thus sees.
_APPLY_TOUCHES = """
    WITH due AS (
        SELECT entry, row_id FROM pending_touches WHERE table_name = '{table}'
        ORDER BY entry LIMIT 1000 FOR UPDATE SKIP LOCKED
    ), unlocked AS (
        SELECT id FROM {table} WHERE id IN (SELECT row_id FROM due)
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    ), moved AS (
        UPDATE {table} SET updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
        WHERE id IN (SELECT id FROM unlocked) RETURNING id
    )
    DELETE FROM pending_touches USING due
    WHERE pending_touches.entry = due.entry AND (
        due.row_id IN (SELECT id FROM moved) OR NOT EXISTS (SELECT 1 FROM {table} WHERE id = due.row_id)
    )
"""


@cache
def latest_query() -> Query:
    """Return the query of the transaction before which are all changes that `changes_query` finds now."""
    return Query(select(_OLDEST_OPEN_XID), {})


def changes_query(organization_id: UUID | None, owner_id: UUID, position: Position, limit: int) -> Query:
    """Return the query of a tenant's changes after a position, in order: its rows are those of `ChangeRow`.

    Args:
        organization_id: The organization; None for personal resources.
        owner_id: The owner of the personal resources.
        position: Where to begin.
        limit: The maximum number of changes.
    """
    statement = _build_page(organization_id is None)
    values = {"tenant_id": organization_id or owner_id, "rows": limit, **position._asdict()}
    return Query(statement, values)


@cache
def _build_page(is_personal: bool) -> Select[Any]:
    tenant_id = bindparam("tenant_id", type_=Uuid())
    if is_personal:
        conditions = [Change.organization_id.is_(None), Change.owner_id == tenant_id]
    else:
        conditions = [Change.organization_id == tenant_id]
    after = tuple_(bindparam("xid", type_=BigInteger()), bindparam("sequence", type_=BigInteger()))
    conditions += [tuple_(Change.xid, Change.sequence) > after, Change.xid < _OLDEST_OPEN_XID]
    page = select(*_COLUMNS).where(*conditions).order_by(Change.xid, Change.sequence)
    return page.limit(bindparam("rows", type_=Integer, literal_execute=True))


def delete_old_changes(database: Database, now: datetime) -> int:
    """Delete the changes that no valid position can reach; return how many."""
    is_old = Change.changed_at < now - DELETION_AGE
    oldest = select(Change.sequence, is_old).order_by(Change.sequence)
    with database.transaction(write=False) as session:
        first = session.execute(oldest.limit(1)).first()
    if first is None or not first[1]:
        return 0
    deleted = 0
    while True:
        # In the order of the primary key, because the time has no index. Where a younger change comes first,
        # the rest is left to a later run.
        with database.transaction(write=True) as session:
            batch = session.execute(oldest.limit(DELETE_BATCH_SIZE)).all()
            due = [sequence for sequence, is_due in batch if is_due]
            if due:
                session.execute(delete(Change).where(Change.sequence <= due[-1], is_old))
        deleted += len(due)
        if len(due) < DELETE_BATCH_SIZE:
            return deleted


def apply_pending_touches(database: Database) -> None:
    """Move `updated_at` of the rows that a trigger left because another transaction had locked them.

    Rows that are locked now are left for the next run.
    """
    with database.transaction(write=False) as session:
        if session.scalar(select(PendingTouch.entry).limit(1)) is None:
            return
    for table in TOUCHED_TABLES:
        with database.transaction(write=True) as session:
            session.execute(text(_APPLY_TOUCHES.format(table=table)))
