"""Send the events `api_key.expiring`: a periodic task, which several processes may run at the same time.

A column of the key says when its next event is due. It changes in the transaction that stores the event, so
each event is stored once, also when a process is killed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update

from db.base import utc_now
from db.models.api_keys import ApiKey
from db.session import Database, current_session
from studio.accounts.api_keys import EXPIRY_NOTICE_DAYS, next_expiry_notice
from studio.webhooks.events import emit_api_key_event

BATCH_SIZE = 100
"""The number of keys of one transaction."""


def send_expiry_notices(database: Database) -> int:
    """Store the due events of all keys and return their number.

    If no process ran for a while, a key has only the last of its due events, and an expired key none.
    """
    count = 0
    # The read comes first: mostly there is nothing to send, and a read takes no row locks.
    while _has_due(database):
        with database.transaction(write=True):
            keys = _lock_due(utc_now())
            count += sum(_send_notice(key, utc_now()) for key in keys)
        if len(keys) < BATCH_SIZE:
            break
    return count


def _has_due(database: Database) -> bool:
    with database.transaction(write=False) as reading:
        due = select(ApiKey.id).where(_is_due(utc_now())).limit(1)
        return reading.scalar(due) is not None


def _is_due(now: datetime) -> ColumnElement[bool]:
    return ApiKey.next_expiry_notice_at <= now


def _lock_due(now: datetime) -> list[ApiKey]:
    """Return some due keys. Those that another process has locked are left to it."""
    due = select(ApiKey).where(_is_due(now)).order_by(ApiKey.next_expiry_notice_at, ApiKey.id)
    return list(current_session().scalars(due.limit(BATCH_SIZE).with_for_update(skip_locked=True)))


def _send_notice(key: ApiKey, now: datetime) -> bool:
    """Schedule the next event of a locked key, and emit the due one; return whether there was one."""
    current_session().execute(
        update(ApiKey)
        .where(ApiKey.id == key.id)
        # The column is internal: clients must not see a new `updated_at`.
        .values(next_expiry_notice_at=next_expiry_notice(key.expires_at, now), updated_at=ApiKey.updated_at)
        .execution_options(synchronize_session=False)
    )
    passed = [days for days in EXPIRY_NOTICE_DAYS if key.expires_at - timedelta(days=days) <= now]
    if not passed or key.expires_at <= now:
        return False
    emit_api_key_event("api_key.expiring", key, min(passed))
    return True
