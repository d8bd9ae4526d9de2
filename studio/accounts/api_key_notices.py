"""Send the events `api_key.expiring` and `api_key.deprecated_use`: periodic tasks of several processes.

A column of the key says when its next event is due, or when it had the last one. It changes in the
transaction that stores the event, so each event is stored once, also when a process is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select

from db.base import utc_now
from db.models.api_keys import ApiKey, ApiUsage
from db.models.users import User
from db.queries.statements import delete_in_batches
from db.session import Database, current_session
from studio.accounts.api_keys import EXPIRY_NOTICE_DAYS, next_expiry_notice
from studio.infrastructure.settings import Settings
from studio.mail.emails import Email
from studio.mail.mailer import find_mailer
from studio.webhooks.events import DeprecatedPart, emit_api_key_deprecated_use, emit_api_key_expiring

BATCH_SIZE = 100
"""The number of keys of one transaction."""
NOTICE_INTERVAL = timedelta(days=7)
"""How often the owner of a key hears of the deprecated parts that it uses."""
MAX_PARTS = 20
"""How many parts a notice lists; all are in `list_organization_api_usage`."""
RETENTION = timedelta(days=90)
"""How long the use of a day is kept."""

_DEPRECATED_TEXT = """\
The API key "{name}" (...{last_four}) used these deprecated parts of the Sartiq API in the last seven days:

{parts}

Requests fail after the date given, so change the program that uses the key.
"""


def send_expiry_notices(database: Database) -> int:
    """Store the due events `api_key.expiring` of all keys and return their number.

    If no process ran for a while, a key has only the last of its due events, and an expired key none.
    """
    return _send_due(database, lambda now: ApiKey.next_expiry_notice_at <= now, _send_expiry_notice)


def send_deprecation_notices(database: Database, settings: Settings) -> int:
    """Tell the owners of keys that still use deprecated parts, at most once a week; return their number."""

    def is_due(now: datetime) -> ColumnElement[bool]:
        last, since = ApiKey.deprecated_use_notified_at, now - NOTICE_INTERVAL
        used = select(ApiUsage.api_key_id).where(
            ApiUsage.is_deprecated.is_(True), ApiUsage.updated_at > since
        )
        return or_(last.is_(None), last <= since) & ApiKey.id.in_(used)

    return _send_due(database, is_due, lambda key, now: _send_deprecation_notice(key, now, settings))


def delete_old_usage(database: Database) -> int:
    """Delete what was used longer ago than `RETENTION` and return the number of rows."""
    is_old = ApiUsage.created_at <= utc_now() - RETENTION
    return delete_in_batches(database, [ApiUsage.id], is_old)


def _send_due(
    database: Database,
    is_due: Callable[[datetime], ColumnElement[bool]],
    send: Callable[[ApiKey, datetime], bool],
) -> int:
    """Send a notice for each key that is due, and return how many of the calls of `send` sent one."""
    count = 0
    # The read comes first: mostly there is nothing to send, and a read takes no row locks.
    while _has_due(database, is_due):
        with database.transaction(write=True) as session:
            due = select(ApiKey).where(is_due(utc_now())).order_by(ApiKey.id).limit(BATCH_SIZE)
            # Keys that another process has locked are left to it.
            keys = list(session.scalars(due.with_for_update(skip_locked=True)))
            count += sum(send(key, utc_now()) for key in keys)
        if len(keys) < BATCH_SIZE:
            break
    return count


def _has_due(database: Database, is_due: Callable[[datetime], ColumnElement[bool]]) -> bool:
    with database.transaction(write=False) as reading:
        return reading.scalar(select(ApiKey.id).where(is_due(utc_now())).limit(1)) is not None


def _send_expiry_notice(key: ApiKey, now: datetime) -> bool:
    """Schedule the next event of a locked key, and emit the due one; return whether there was one."""
    key.next_expiry_notice_at = next_expiry_notice(key.expires_at, now)
    passed = [days for days in EXPIRY_NOTICE_DAYS if key.expires_at - timedelta(days=days) <= now]
    if not passed or key.expires_at <= now:
        return False
    emit_api_key_expiring(key, min(passed))
    return True


def _send_deprecation_notice(key: ApiKey, now: datetime, settings: Settings) -> bool:
    key.deprecated_use_notified_at = now
    parts = _list_deprecated_parts(key, now - NOTICE_INTERVAL)
    emit_api_key_deprecated_use(key, parts)
    account = current_session().scalars(select(User).where(User.id == key.created_by_id)).one()
    mailer = find_mailer(settings)
    if mailer is not None and account.is_active:
        lines = "\n".join(f"- {_describe(part)}" for part in parts)
        mailer.send(
            Email(
                kind="api_key_deprecated_use",
                recipient=account.email,
                subject=f'Your API key "{key.name}" uses deprecated parts of the Sartiq API',
                text=_DEPRECATED_TEXT.format(name=key.name, last_four=key.last_four, parts=lines),
                label="What is deprecated, and how to see who uses it",
                url=f"{settings.public_url}/guides/versioning/",
            )
        )
    return True


def _list_deprecated_parts(key: ApiKey, since: datetime) -> list[DeprecatedPart]:
    """Return the deprecated parts that a key used, most used first."""
    record, calls = ApiUsage, func.sum(ApiUsage.calls)
    part = record.operation_id, record.kind, record.name
    used = (
        select(
            *part,
            calls,
            func.max(record.updated_at),
            func.max(record.sunset_at),
            func.max(record.replacement),
        )
        .where(record.api_key_id == key.id, record.is_deprecated.is_(True), record.updated_at > since)
        .group_by(*part)
        .order_by(calls.desc(), *part)
        .limit(MAX_PARTS)
    )
    return [
        DeprecatedPart(row[0], row[1], row[2], int(row[3]), *row[4:])
        for row in current_session().execute(used)
    ]


def _describe(part: DeprecatedPart) -> str:
    name = (
        f"{part.kind} {part.name} of {part.operation_id}" if part.name else f"operation {part.operation_id}"
    )
    ends = f"ends on {part.sunset_at:%Y-%m-%d}" if part.sunset_at else "works in this version of the API"
    instead = f"; instead: {part.replacement}" if part.replacement else ""
    return f"{name}: {part.calls:,} calls; {ends}{instead}"
