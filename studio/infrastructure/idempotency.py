"""The idempotency lock, and the stored responses of idempotency keys.

The response is stored in the transaction of the change itself, so both are committed or neither. That
transaction also holds the lock, as an advisory lock that ends with it. A request with slow work before its
transaction holds the lock by a row instead, with a lease in case its process dies. This module knows neither
HTTP nor the meaning of a response.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, cast
from uuid import UUID, uuid4

from sqlalchemy import and_, bindparam, delete, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from db.audit import EVENT_CTE, build_cte_values, insert_event
from db.base import affected_one, new_id, utc_now
from db.fast_path.driver_statement import DriverStatement, MessageConnection
from db.models.idempotency import NO_ORGANIZATION_ID, IdempotencyKey
from db.queries.statements import delete_in_batches
from db.session import Database, current_session

LEASE_DURATION = timedelta(seconds=60)
"""Longer than a request may take. A slower one stores nothing: its lock may have been taken over."""
RETENTION = timedelta(hours=24)

_COLUMNS = IdempotencyKey.__table__.c
_NAMESPACE_COLUMNS = ("user_id", "organization_id", "operation_id", "key_hash")


@dataclass(frozen=True)
class IdempotencyNamespace:
    """What a key is unique in: the same key of another user, organization or operation is another key."""

    user_id: UUID
    organization_id: UUID | None
    operation_id: str
    key_hash: str

    def columns(self) -> dict[str, Any]:
        """Return the columns of the unique index."""
        return {
            "user_id": self.user_id,
            "organization_id": self.organization_id or NO_ORGANIZATION_ID,
            "operation_id": self.operation_id,
            "key_hash": self.key_hash,
        }

    def lock_id(self) -> int:
        """Return the 64-bit id of the advisory lock; on a collision two requests exclude each other."""
        name = " ".join(map(str, self.columns().values())).encode("ascii")
        return int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)


@dataclass
class IdempotencyLock:
    """The right to execute the request of a key, until its transaction ends or its lease expires."""

    namespace: IdempotencyNamespace
    fingerprint: str
    token: UUID
    scope_id: UUID | None = None
    """The organization or account on whose rows the request was allowed to work."""
    row_id: UUID | None = None
    """The row that holds the lock beyond its transaction."""
    stale_row: tuple[UUID, UUID] | None = None
    """The id and token of an expired row, deleted when the row of this lock is inserted. Not before: a
    rollback restores it, and it would keep the error from being stored."""


class StoredKey(NamedTuple):
    """The row of a key. `status` and the columns after it are None while the request runs."""

    id: UUID
    turn: UUID
    fingerprint: str
    lease_expires_at: datetime
    expires_at: datetime
    scope_id: UUID | None
    status: Any
    headers: Any
    body: bytes | None


_NEW_KEY = (True, *(None for _ in StoredKey._fields))
"""What the statement of `acquire` returns for a key that no request has used: the lock, and no row."""


class RequestInProgress(Exception):
    """Another request holds the lock."""


def acquire(namespace: IdempotencyNamespace, fingerprints: Sequence[str]) -> IdempotencyLock | StoredKey:
    """Acquire the lock of a key in the running write transaction.

    Args:
        namespace: The key.
        fingerprints: The hash of the request under each secret of the server. The first one is stored.

    Returns:
        The lock if the key is new, expired, or was abandoned by a process that died; else its row.

    Raises:
        RequestInProgress: Another transaction holds the lock.
    """
    values = {**namespace.columns(), "number": namespace.lock_id()}
    found = _build_select().fetch_usual(current_session().connection(), values, _NEW_KEY)
    # The statement returns one row.
    is_locked, *columns = cast("tuple[Any, ...]", found)
    key = None if columns[0] is None else StoredKey(*columns)
    if key is not None and not _is_reclaimable(key, fingerprints, utc_now()):
        return key
    if not is_locked:
        raise RequestInProgress
    return IdempotencyLock(
        namespace, fingerprints[0], uuid4(), stale_row=None if key is None else (key.id, key.turn)
    )


@cache
def _build_select() -> DriverStatement:
    """Select whether this transaction has acquired the lock, and the row of a key, NULLs if there is none."""
    # Not the waiting variant: it would hold a thread and a connection while the first request runs.
    is_locked = func.pg_try_advisory_xact_lock(bindparam("number"))
    one_row = select(literal_column("1")).subquery()
    in_namespace = [_COLUMNS[name] == bindparam(name) for name in _NAMESPACE_COLUMNS]
    statement = select(is_locked.label("is_locked"), *(_COLUMNS[name] for name in StoredKey._fields))
    return DriverStatement(statement.select_from(one_row.outerjoin(IdempotencyKey, and_(*in_namespace))))


def _is_reclaimable(key: StoredKey, fingerprints: Sequence[str], now: datetime) -> bool:
    is_abandoned = key.status is None and key.lease_expires_at <= now
    is_same = any(hmac.compare_digest(key.fingerprint, each) for each in fingerprints)
    return key.expires_at <= now or (is_abandoned and is_same)


def persist_lock(lock: IdempotencyLock) -> None:
    """Keep a lock beyond the running transaction, until its lease expires.

    Raises:
        RequestInProgress: Another request has inserted the row of the key.
    """
    lock.row_id = new_id()
    if not _insert(lock, lock.row_id, None, None, None):
        raise RequestInProgress


def store_response(
    lock: IdempotencyLock,
    status: int,
    headers: dict[str, str],
    body: bytes,
    events: Sequence[Mapping[str, Any]] = (),
) -> bool:
    """Store the response and the audit events of the request in the running transaction.

    One event is a part of the statement that stores the response: a statement of its own would cost a third
    of an idempotency key.

    Returns:
        False if another request has taken over the key, so that the transaction must be rolled back.
    """
    if lock.row_id is None:
        return _insert(lock, new_id(), status, headers, body, events)
    for event in events:
        insert_event(event)
    values = {"scope_id": lock.scope_id, "status": status, "headers": headers, "body": body}
    statement = update(IdempotencyKey).where(*_owned_by(lock.row_id, lock.token)).values(values)
    return affected_one(current_session().connection().execute(statement))


def release(lock: IdempotencyLock) -> None:
    """Free the key: the request was not executed, and the next one with the key is the first."""
    if lock.row_id is not None:
        _delete(lock.row_id, lock.token)


def _insert(
    lock: IdempotencyLock,
    row_id: UUID,
    status: int | None,
    headers: dict[str, str] | None,
    body: bytes | None,
    events: Sequence[Mapping[str, Any]] = (),
) -> bool:
    """Insert the row of a lock and events; return False if the key has a row of another request."""
    if lock.stale_row is not None:
        _delete(*lock.stale_row)
    now = utc_now()
    row = {
        "id": row_id,
        **lock.namespace.columns(),
        "created_at": now,
        "updated_at": now,
        "fingerprint": lock.fingerprint,
        "turn": lock.token,
        "lease_expires_at": now + LEASE_DURATION,
        "expires_at": now + RETENTION,
        "scope_id": lock.scope_id,
        "status": status,
        "headers": headers,
        "body": body,
    }
    has_event = len(events) == 1
    if has_event:
        row |= build_cte_values(events[0])
    else:
        for event in events:
            insert_event(event)
    connection = current_session().connection()
    if isinstance(connection, MessageConnection):
        _build_insert(has_event, raises=True).execute_later(connection, row)
        return True
    return _build_insert(has_event).execute(connection, row) == 1


@cache
def _build_insert(has_event: bool, raises: bool = False) -> DriverStatement:
    """Return the INSERT of a key: an error on conflict would abort the transaction if it `raises`."""
    statement = insert(IdempotencyKey)
    if not raises:
        statement = statement.on_conflict_do_nothing()
    return DriverStatement(statement.add_cte(EVENT_CTE) if has_event else statement)


def _delete(row_id: UUID, token: UUID) -> None:
    current_session().connection().execute(delete(IdempotencyKey).where(*_owned_by(row_id, token)))


def _owned_by(row_id: UUID, token: UUID) -> tuple[Any, ...]:
    """Return the condition that a row still belongs to the lock with this token."""
    return IdempotencyKey.id == row_id, IdempotencyKey.turn == token


def delete_expired_keys(database: Database) -> int:
    """Delete the keys whose retention is over and return their number."""
    return delete_in_batches(database, [IdempotencyKey.id], IdempotencyKey.expires_at <= utc_now())
