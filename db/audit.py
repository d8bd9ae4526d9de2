"""What one request does to rows, gathered from the session's flushes for its event in the audit log.

Secrets stay out: what could be one is masked by its column's name, so that a new column is masked from its
first day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Column, event, insert, inspect
from sqlalchemy.orm import Session

from db.base import Identified, utc_now
from db.models.audit import AuditEvent
from db.models.organizations import Membership
from db.models.users import User
from db.session import current_write_connection

MASK = "***"
MAX_TEXT_LENGTH = 500
MAX_LIST_LENGTH = 100

_SECRET = re.compile(r"hash|salt|secret|password|token|config|credential|(^|_)key(_|$)")
_NOT_SECRET = {"content_hash"}
_SECRET_URLS = {"url"}
"""Addresses of others: the way and the query may hold a credential of theirs, the server is told."""

# How the house keeps its books; nobody asked for it.
_INTERNAL_COLUMNS = {
    "id",
    "organization_id",
    "created_at",
    "updated_at",
    "email_key",
    "inputs",
    "revision",
    "trace_context",
    "attempts",
    "lease_owner",
    "lease_expires_at",
    "deadline_at",
    "claimed_by",
    "busy_until",
    "served_at",
}

_LOGGED_TYPES = (str, int, float, UUID, datetime, dict, list)
_INSERT = insert(AuditEvent)
_NULL_COLUMNS = {column.name: None for column in AuditEvent.__table__.c if column.nullable}


class Change(NamedTuple):
    """One field of the target, before and after as plain values; null for none."""

    field: str
    before: Any
    after: Any


@dataclass
class _TrackedRow:
    """One row and the values that it had before the request, as far as they changed."""

    row: Identified
    is_new: bool
    is_deleted: bool = False
    before: dict[str, Any] = field(default_factory=dict)


@dataclass
class ChangeTracker:
    """What the running request has touched, and what was said about it that no row shows."""

    account_id: UUID | None = None
    """As whom a request without a token acts if it succeeds."""
    account_email: str | None = None
    target: tuple[str, UUID] | None = None
    recorded_changes: list[Change] = field(default_factory=list)
    """What changed of the target without a change of its own row."""
    _rows: dict[tuple[bool, UUID], _TrackedRow] = field(default_factory=dict)

    def track(self, row: Any, is_new: bool = False, is_deleted: bool = False) -> None:
        """Remember a row that is being flushed."""
        if not isinstance(row, Identified):
            return
        # Members are known outside by their account.
        is_member = isinstance(row, Membership)
        key = (is_member, row.user_id if isinstance(row, Membership) else row.id)
        touched = self._rows.setdefault(key, _TrackedRow(row, is_new))
        touched.is_deleted = touched.is_deleted or is_deleted
        for name, value in inspect(row).committed_state.items():
            touched.before.setdefault(name, value)

    def find(self, target_type: str, target_id: UUID) -> tuple[Identified | None, list[Change]]:
        """The row of this name and its changes; no row when the request left it as it is."""
        touched = self._rows.get((target_type == "member", target_id))
        return (
            (None, self.recorded_changes)
            if touched is None
            else (touched.row, [*_list_changes(touched), *self.recorded_changes])
        )


_tracker: ContextVar[ChangeTracker | None] = ContextVar("trail", default=None)


@contextmanager
def track_changes() -> Iterator[ChangeTracker]:
    """Gather what is flushed within the block."""
    trail = ChangeTracker()
    token = _tracker.set(trail)
    try:
        yield trail
    finally:
        _tracker.reset(token)


def set_actor(user: User) -> None:
    """Say as whom a request without a token acts if it succeeds: who signs in, or proves an address."""
    trail = _tracker.get()
    if trail is not None:
        trail.account_id, trail.account_email = user.id, user.email


def set_target(target_type: str, target_id: UUID) -> None:
    """Say what the request is about where neither its path nor the Location of its answer does."""
    trail = _tracker.get()
    if trail is not None:
        trail.target = (target_type, target_id)


def record_change(name: str, before: object, after: object) -> None:
    """Say what changed of the target where that is kept in rows of another table."""
    trail = _tracker.get()
    if trail is not None:
        trail.recorded_changes.append(Change(name, _to_log_value(name, before), _to_log_value(name, after)))


def record_insert(row: Identified) -> None:
    """Remember a row that was inserted past the session's flushes."""
    trail = _tracker.get()
    if trail is not None:
        trail.track(row, is_new=True)


def insert_event(event: Mapping[str, Any]) -> None:
    """Add an event to the log in the running transaction; it is not read back.

    Past the session's own machinery, which would take several times as long.
    """
    now = utc_now()
    current_write_connection().execute(
        _INSERT, {**_NULL_COLUMNS, **event, "created_at": now, "updated_at": now}
    )


def _track_flush(flushing: Session, _context: object) -> None:
    trail = _tracker.get()
    if trail is None:
        return
    for row in flushing.new:
        trail.track(row, is_new=True)
    for row in flushing.dirty:
        trail.track(row)
    for row in flushing.deleted:
        trail.track(row, is_deleted=True)


event.listen(Session, "after_flush", _track_flush)


@cache
def _logged_columns(model: type[Identified]) -> tuple[str, ...]:
    """The attributes that are told."""
    return tuple(
        each.key
        for each in inspect(model).column_attrs
        if isinstance(each.columns[0], Column) and each.key not in _INTERNAL_COLUMNS
    )


@cache
def _list_link_columns(model: type[Identified]) -> dict[str, tuple[str, str]]:
    """The lists of ids that are rows of their own: the relationship, its name outside, its column."""
    found = {}
    for relation in inspect(model).relationships:
        if relation.key.endswith("_links"):
            (other,) = (key for key in relation.mapper.primary_key if key not in relation.remote_side)
            found[relation.key] = (relation.key.replace("_links", "_ids"), str(other.key))
    return found


@cache
def is_secret(name: str) -> bool:
    """Whether the values of a column of this name are masked."""
    return bool(_SECRET.search(name)) and name not in _NOT_SECRET


def _list_changes(touched: _TrackedRow) -> list[Change]:
    model, now = type(touched.row), touched.row.__dict__
    found = []
    for name in _logged_columns(model):
        before = after = None
        if touched.is_new:
            after = now.get(name)
        elif touched.is_deleted:
            before = touched.before.get(name, now.get(name))
        elif name in touched.before and touched.before[name] != now.get(name):
            before, after = touched.before[name], now.get(name)
        if before is None and after is None:
            continue
        change = Change(name, _to_log_value(name, before), _to_log_value(name, after))
        if change.before is not None or change.after is not None:
            found.append(change)
    for name, (told, column) in _list_link_columns(model).items():
        before, after = (
            [getattr(link, column) for link in links] if isinstance(links, list) else []
            for links in (touched.before.get(name), now.get(name))
        )
        if (touched.is_new or name in touched.before) and before != after:
            found.append(
                Change(
                    told, None if touched.is_new else _to_log_value(told, before), _to_log_value(told, after)
                )
            )
    return found


def _to_log_value(name: str, value: Any) -> Any:
    """A value as the log keeps it: a scalar, or a list of texts; long ones are cut short."""
    if value is None or not isinstance(value, _LOGGED_TYPES):
        return None
    if is_secret(name):
        return MASK
    if name in _SECRET_URLS:
        parts = urlsplit(str(value))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{MASK}"
    match value:
        case bool() | int() | float():
            return value
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case list() if all(isinstance(one, str | UUID) for one in value):
            return [str(one)[:MAX_TEXT_LENGTH] for one in value[:MAX_LIST_LENGTH]]
        case dict() | list():
            return _truncate(json.dumps(value, default=str))
    return _truncate(str(value))


def _truncate(text: str) -> str:
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
