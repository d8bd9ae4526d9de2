"""Read a page of a tenant's change feed, and check that the position of a client is still valid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from db.base import utc_now
from db.change_feed.queries import (
    RETENTION,
    START,
    Position,
    get_feed_id,
    get_latest_position,
    list_changes,
)
from db.errors import Conflict


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

    changes: list[Row[Any]]
    cursor: FeedCursor
    has_more: bool


def read_page(
    organization_id: UUID | None, owner_id: UUID, limit: int, cursor: FeedCursor | None, from_latest: bool
) -> ChangePage:
    """Return the changes of a tenant after a cursor.

    Args:
        organization_id: The organization; None for personal resources.
        owner_id: The owner of the personal resources.
        limit: The maximum number of changes.
        cursor: Where to begin; None to begin with the oldest change that is kept.
        from_latest: Without a cursor, begin after the changes of now: the page is empty.

    Raises:
        CursorExpired: Changes after the cursor may have been deleted, or the cursor belongs to another
            database.
    """
    # Before the page, so that a cursor is never younger than its page.
    now, feed_id = utc_now(), get_feed_id()
    if cursor is not None and (cursor.feed_id != feed_id or cursor.issued_at <= now - RETENTION):
        raise CursorExpired(parameter="cursor")
    if cursor is None and from_latest:
        return ChangePage([], FeedCursor(feed_id, get_latest_position(), now), has_more=False)
    position = START if cursor is None else cursor.position
    rows = list_changes(organization_id, owner_id, position, limit + 1)
    page = rows[:limit]
    if page:
        position = Position(page[-1].xid, page[-1].sequence)
    return ChangePage(page, FeedCursor(feed_id, position, now), has_more=len(rows) > limit)
