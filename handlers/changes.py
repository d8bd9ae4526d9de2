"""The change feed of a tenant. Triggers write it (`db/change_feed`); this module only reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from db.base import utc_now
from db.caller import current_caller
from db.change_feed.queries import Position
from handlers.common.cursors import decode_position, encode_position
from handlers.common.permissions import Permission, requires
from handlers.common.reads import Reading, Step, read_permission_in
from handlers.common.responses import ApiResponse, serialize_many
from handlers.schemas.changes import ChangeSchema
from studio import changes
from studio.changes import FeedCursor


@requires(Permission.CHANGES_READ)
def list_changes(
    limit: int, organization_id: UUID | None = None, cursor: str | None = None, start: str = "earliest"
) -> Reading[ApiResponse]:
    """Return the changes of a tenant's resources after a cursor."""
    yield from read_permission_in(organization_id)
    tenant_id = organization_id or current_caller().user_id
    scope = f"changes {tenant_id}"
    known = None if cursor is None else _decode_cursor(cursor, scope)
    place, now = (known, start == "latest"), utc_now()
    found = yield Step(changes.select_page(organization_id, tenant_id, limit, *place))
    page = changes.build_page(found, limit, *place, now)
    body = {
        "data": serialize_many(page.changes, ChangeSchema),
        "next_cursor": _encode_cursor(page.cursor, scope),
        "has_more": page.has_more,
    }
    return ApiResponse(200, body, may_compress=True)


def _encode_cursor(cursor: FeedCursor, scope: str) -> str:
    # In seconds, rounded down: it expires no later than its changes.
    issued_at = int(cursor.issued_at.timestamp())
    return encode_position(scope, cursor.feed_id, *cursor.position, issued_at)


def _decode_cursor(cursor: str, scope: str) -> FeedCursor:
    """Return the position in a cursor.

    Raises:
        NotFound: The signature is invalid, or the cursor belongs to another tenant or list.
    """
    feed_id, xid, sequence, issued_at = decode_position(cursor, scope, 4)
    return FeedCursor(feed_id, Position(xid, sequence), datetime.fromtimestamp(issued_at, UTC))
