"""Build a page of a tenant's change feed, and check that the position of a client is still valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.change_feed.queries import (
    FEED_ID,
    RETENTION,
    START,
    ChangeRow,
    Position,
    changes_query,
    latest_query,
)
from db.errors import Conflict
from db.libpq.statements import Query, Row


class CursorExpired(Conflict):
    """The feed no longer has all changes after the cursor."""

    code = "cursor_expired"
    default_detail = (
        "The cursor is older than 30 days, or the database was restored since: start again without `cursor`, "
        "then read all resources"
    )


@dataclass(frozen=True)
class FeedCursor:
    """A position in the feed of one database, with the time at which a client got it."""

    feed_id: str
    position: Position
    issued_at: datetime


@dataclass(frozen=True)
class ChangePage:
    """A page of changes, and the cursor after it."""

    changes: list[ChangeRow]
    cursor: FeedCursor
    has_more: bool


def select_page(
    organization_id: UUID | None, owner_id: UUID, limit: int, cursor: FeedCursor | None, from_latest: bool
) -> list[Query]:
    """Return the queries of a page of a tenant's changes, for `build_page`.

    Args:
        organization_id: The organization; None for personal resources.
        owner_id: The owner of the personal resources.
        limit: The maximum number of changes.
        cursor: Where to begin; None to begin with the oldest change that is kept.
        from_latest: Without a cursor, begin after the changes of now: the page is empty.
    """
    if cursor is None and from_latest:
        return [FEED_ID, latest_query()]
    position = START if cursor is None else cursor.position
    return [FEED_ID, changes_query(organization_id, owner_id, position, limit + 1)]


def build_page(
    found: Sequence[Sequence[Row]], limit: int, cursor: FeedCursor | None, from_latest: bool, now: datetime
) -> ChangePage:
    """Return the page of what the queries of `select_page` found.

    Args:
        found: The rows of each query.
        limit: As for `select_page`, like `cursor` and `from_latest`.
        cursor: See there.
        from_latest: See there.
        now: A time before the queries, so that a cursor is never younger than its page.

    Raises:
        CursorExpired: Changes after the cursor may have been deleted, or the cursor belongs to another
            database.
    """
    ((feed_id,),), rows = found
    if cursor is None and from_latest:
        ((xid,),) = rows
        return ChangePage([], FeedCursor(feed_id, Position(xid, 0), now), has_more=False)
    if cursor is not None and (cursor.feed_id != feed_id or cursor.issued_at <= now - RETENTION):
        raise CursorExpired(parameter="cursor")
    page = [ChangeRow(*row) for row in rows[:limit]]
    position = START if cursor is None else cursor.position
    if page:
        position = Position(page[-1].xid, page[-1].sequence)
    return ChangePage(page, FeedCursor(feed_id, position, now), has_more=len(rows) > limit)
