"""Track the changes of one request from the session's flushes, for its event in the audit log.

Secrets are masked by a rule over column names, not by a list of columns, so a new secret column is masked
from the start. This module knows no requests and responses; `handlers/pipeline/audit.py` writes the events.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Column, and_, bindparam, event, insert, inspect, select, update
from sqlalchemy.orm import Session

from db.base import Identified, Owned, affected_one, new_id, utc_now
from db.fast_path.driver_statement import DriverStatement
from db.models.audit import AuditEvent
from db.models.organizations import Membership
from db.models.users import User
from db.queries.statements import lock_name
from db.session import current_write_connection, insert_later

MASK = "***"
MAX_TEXT_LENGTH = 500
MAX_LIST_LENGTH = 100
DENIAL_WINDOW = timedelta(minutes=1)
"""Equal denied requests within this time are one event."""

# Words rather than column names: "token" masks `token_hash` and any later column with a token.
_SECRET = re.compile(r"hash|salt|secret|password|token|config|credential|(^|_)key(_|$)")
_NOT_SECRET = {"content_hash"}
_SECRET_URLS = {"url"}
"""URLs of third parties. Path and query may hold credentials, so only the host is logged."""

# Bookkeeping that no client changes directly.
_INTERNAL_COLUMNS = {
    "id",
    "organization_id",
    "created_at",
    "updated_at",
    "email_key",
    "api_key_id",
    "inputs",
    "revision",
    "trace_context",
    "attempts",
    "lease_owner",
    "lease_expires_at",
    "deadline_at",
    "claimed_by",
    "credits_low_at",
    "storage_low_at",
    "requested_by_id",
    "stored_bytes",
    "variant_bytes",
    "next_expiry_notice_at",
    "busy_until",
    "served_at",
}

# `json.dumps` would build an encoder with each call.
_encode_value = json.JSONEncoder(default=str).encode
_LOGGED_TYPES = (str, int, float, UUID, datetime, dict, list)
_DENIAL_KEY = ("organization_id", "account_id", "actor_type", "actor_id", "action", "outcome", "reason")
_NULL_COLUMNS = {column.name: None for column in AuditEvent.__table__.c if column.nullable}
_INSERT = insert(AuditEvent)
_DRIVER_INSERT = DriverStatement(_INSERT)
_PREFIX = "event_"
"""The begin of the names of the parameters of `EVENT_CTE`. Those of the other statement must not begin so."""
EVENT_CTE = (
    insert(AuditEvent)
    .values({column.name: bindparam(_PREFIX + column.name) for column in AuditEvent.__table__.c})
    .cte("event")
)
"""The INSERT of an event as a part of another statement; see `build_cte_values`."""


class Change(NamedTuple):
    """One changed field of the target, with its values before and after; None for no value."""

    field: str
    before: Any
    after: Any


@dataclass
class _TrackedRow:
    """A row with the values of its changed columns from before the request."""

    row: Identified
    is_new: bool
    is_deleted: bool = False
    before: dict[str, Any] = field(default_factory=dict)


@dataclass
class ChangeTracker:
    """The rows that the running request has flushed, and facts about the request that no row shows."""

    account_id: UUID | None = None
    """The account of a request without a token, such as a login, if it succeeds."""
    account_email: str | None = None
    guest_id: UUID | None = None
    """The review link that a guest exchanges."""
    target: tuple[str, UUID] | None = None
    recorded_changes: list[Change] = field(default_factory=list)
    """Changes of the target that are stored in rows of another table."""
    tenants: list[tuple[UUID | None, UUID | None]] = field(default_factory=list)
    """The tenants that each get the event, as organization and account; empty to derive the only one."""
    _rows: dict[tuple[bool, UUID], _TrackedRow] = field(default_factory=dict)

    def track(self, row: Any, is_new: bool = False, is_deleted: bool = False) -> None:
        """Record a row that is being flushed, with the values it had before."""
        if not isinstance(row, Identified):
            return
        # The API identifies a member by the user's id, not by the membership's.
        is_member = isinstance(row, Membership)
        key = (is_member, row.user_id if isinstance(row, Membership) else row.id)
        tracked = self._rows.setdefault(key, _TrackedRow(row, is_new))
        tracked.is_deleted = tracked.is_deleted or is_deleted
        for name, value in inspect(row).committed_state.items():
            # A request may flush a row several times; only the first value is from before the request.
            tracked.before.setdefault(name, value)

    def find(self, target_type: str, target_id: UUID) -> tuple[Identified | None, list[Change]]:
        """Return the row of a target and its changes; None for the row if the request did not change it."""
        tracked = self._rows.get((target_type == "member", target_id))
        if tracked is None:
            return None, self.recorded_changes
        return tracked.row, [*_list_changes(tracked), *self.recorded_changes]


_tracker: ContextVar[ChangeTracker | None] = ContextVar("change_tracker", default=None)


@contextmanager
def track_changes() -> Iterator[ChangeTracker]:
    """Track the rows that are flushed within the block."""
    tracker = ChangeTracker()
    token = _tracker.set(tracker)
    try:
        yield tracker
    finally:
        _tracker.reset(token)


def set_actor(user: User) -> None:
    """Set the actor of a request without a token, such as a login or the confirmation of an address."""
    tracker = _tracker.get()
    if tracker is not None:
        tracker.account_id, tracker.account_email = user.id, user.email


def set_guest(link_id: UUID, organization_id: UUID | None, owner_id: UUID) -> None:
    """Set the review link that a request without a token exchanges, as its actor and target.

    Args:
        link_id: The review link.
        organization_id: The organization of its shooting; None if that is personal.
        owner_id: The owner of its shooting.
    """
    tracker = _tracker.get()
    if tracker is not None:
        tracker.guest_id, tracker.target = link_id, ("review_link", link_id)
        tracker.tenants = [(organization_id, owner_id if organization_id is None else None)]


def set_tenants(account_id: UUID, organization_id: UUID | None = None) -> None:
    """Set whose logs get the event: that of an account and, if it is about one, that of an organization.

    The transaction needs a role that may write there.
    """
    tracker = _tracker.get()
    if tracker is not None:
        organizations = [] if organization_id is None else [(organization_id, None)]
        tracker.tenants = [*organizations, (None, account_id)]


def set_target(target_type: str, target_id: UUID) -> None:
    """Set the target of the request, if neither its path nor the `Location` of its response names it."""
    tracker = _tracker.get()
    if tracker is not None:
        tracker.target = (target_type, target_id)


def record_change(name: str, before: object, after: object) -> None:
    """Record a change of the target that is stored in rows of another table."""
    tracker = _tracker.get()
    if tracker is not None:
        tracker.recorded_changes.append(Change(name, _to_log_value(name, before), _to_log_value(name, after)))


def record_transfer(row: Owned, organization_id: UUID | None, owner_id: UUID) -> None:
    """Record the event of a request that moves a row to another tenant in both tenants.

    Args:
        row: The row, which is not changed yet.
        organization_id: Its new organization; None makes it personal.
        owner_id: Its new owner.
    """
    tracker = _tracker.get()
    if tracker is not None:
        account_id = row.owner_id if row.organization_id is None else None
        tracker.tenants = [
            (row.organization_id, account_id),
            (organization_id, owner_id if organization_id is None else None),
        ]
    record_change("organization_id", row.organization_id, organization_id)


def record_flush(row: Identified, is_new: bool = False, is_deleted: bool = False) -> None:
    """Record a row that was written without a flush of a `Session`."""
    tracker = _tracker.get()
    if tracker is not None:
        tracker.track(row, is_new, is_deleted)


def insert_event(event: Mapping[str, Any]) -> None:
    """Insert an event into the audit log in the running transaction.

    The statement bypasses the ORM session, which would take several times as long.
    """
    values = _complete_event(event)
    if not insert_later(_INSERT, values):
        _DRIVER_INSERT.execute_later(current_write_connection(), values)


def build_cte_values(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of `EVENT_CTE` for an event."""
    return {_PREFIX + name: value for name, value in _complete_event(event).items()}


def _complete_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each column of an event."""
    now = utc_now()
    return {"id": new_id(), "count": 1, **_NULL_COLUMNS, **event, "created_at": now, "updated_at": now}


def insert_denial(denial: Mapping[str, Any], count: int = 1) -> None:
    """Insert the event of a denied request, or count the request in an equal event of the last minute.

    `count` is the number of equal denials, such as those of the items of a batch.

    Requests are equal if tenant, actor, action and reason are. Without an actor, the address must be, too.
    Otherwise one client could fill the table with requests that it may not make.
    """
    now, connection = utc_now(), current_write_connection()
    columns = [*_DENIAL_KEY, *(() if denial.get("actor_id") else ("address",))]
    key = {name: denial.get(name) for name in columns}
    # Two processes must not both find no event.
    lock_name(repr(key))
    # The clock of another process may be ahead. Without limits, all partitions would be searched.
    is_recent = and_(AuditEvent.created_at > now - DENIAL_WINDOW, AuditEvent.created_at < now + DENIAL_WINDOW)
    latest = (
        select(AuditEvent.id)
        .where(*(getattr(AuditEvent, name) == value for name, value in key.items()), is_recent)
        .order_by(AuditEvent.created_at.desc())
        .limit(1)
    )
    repeated = update(AuditEvent).where(AuditEvent.id == latest.scalar_subquery(), is_recent)
    if not affected_one(connection.execute(repeated.values(count=AuditEvent.count + count, updated_at=now))):
        insert_event({**denial, "count": count})


def _track_flush(flushing: Session, _context: object) -> None:
    tracker = _tracker.get()
    if tracker is None:
        return
    for row in flushing.new:
        tracker.track(row, is_new=True)
    for row in flushing.dirty:
        tracker.track(row)
    for row in flushing.deleted:
        tracker.track(row, is_deleted=True)


# At `after_flush` the session still knows which rows are new or changed, and their previous values.
event.listen(Session, "after_flush", _track_flush)


@cache
def _logged_columns(model: type[Identified]) -> dict[str, str]:
    """Return the attributes of a model that the log may show, with the names of their columns."""
    return {
        attribute.key: attribute.columns[0].name
        for attribute in inspect(model).column_attrs
        # Computed attributes, such as counts, are expressions and not columns.
        if isinstance(attribute.columns[0], Column) and attribute.key not in _INTERNAL_COLUMNS
    }


@cache
def _list_link_columns(model: type[Identified]) -> dict[str, tuple[str, str]]:
    """Return the relationships that store lists of ids: by name, the public name and the id's column."""
    link_columns = {}
    for relation in inspect(model).relationships:
        if relation.key.endswith("_links"):
            (other,) = (key for key in relation.mapper.primary_key if key not in relation.remote_side)
            link_columns[relation.key] = (relation.key.replace("_links", "_ids"), str(other.key))
    return link_columns


@cache
def is_secret(name: str) -> bool:
    """Return whether the log masks the values of a column with this name."""
    return bool(_SECRET.search(name)) and name not in _NOT_SECRET


def _list_changes(tracked: _TrackedRow) -> list[Change]:
    model, now = type(tracked.row), tracked.row.__dict__
    changes = []
    for name, column_name in _logged_columns(model).items():
        before = after = None
        if tracked.is_new:
            after = now.get(name)
        elif tracked.is_deleted:
            before = tracked.before.get(name, now.get(name))
        elif name in tracked.before and tracked.before[name] != now.get(name):
            before, after = tracked.before[name], now.get(name)
        if before is not None:
            before = _to_log_value(name, before)
        if after is not None:
            after = _to_log_value(name, after)
        # A value of a type that is not logged has become None.
        if before is not None or after is not None:
            changes.append(Change(column_name, before, after))
    for name, (public_name, column) in _list_link_columns(model).items():
        before, after = (
            [getattr(link, column) for link in links] if isinstance(links, list) else []
            for links in (tracked.before.get(name), now.get(name))
        )
        if (tracked.is_new or name in tracked.before) and before != after:
            logged_before = None if tracked.is_new else _to_log_value(public_name, before)
            changes.append(Change(public_name, logged_before, _to_log_value(public_name, after)))
    return changes


def _to_log_value(name: str, value: Any) -> Any:
    """Return a value as the log stores it: a scalar or a list of texts, truncated if long."""
    if value is None or not isinstance(value, _LOGGED_TYPES):
        return None
    # The change itself is logged, so a masked field still shows that a secret was replaced.
    if is_secret(name):
        return MASK
    if name in _SECRET_URLS:
        parts = urlsplit(str(value))
        # The part before "@" may be a user name and a password.
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{MASK}"
    match value:
        # First, because most values are.
        case str() | UUID():
            return _truncate(str(value))
        case bool() | int() | float():
            return value
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case list() if all(isinstance(item, str | UUID) for item in value):
            return [str(item)[:MAX_TEXT_LENGTH] for item in value[:MAX_LIST_LENGTH]]
    return _truncate(_encode_value(value))


def _truncate(text: str) -> str:
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
