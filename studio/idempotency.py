"""What makes a request that carries a key happen once: whose turn it is, and the answer for who asks again.

The answer is kept in the transaction of the work itself: either both are there or neither. That transaction
is the turn, too: on PostgreSQL by a lock which ends with it, on SQLite because there is one writer. Who has
to work before it opens one holds the turn by a row, with a lease for the case of death.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Executable, Row, and_, bindparam, delete, func, literal_column, select, true, update

from db.base import affected_one, new_id, utc_now
from db.models.idempotency import NO_ORGANIZATION_ID, IdempotencyKey
from db.queries.statements import delete_in_batches, insert_for_dialect
from db.session import Database, current_session

LEASE_DURATION = timedelta(seconds=60)
"""Longer than a request may take. One that takes longer all the same keeps nothing: its turn may be over."""
RETENTION = timedelta(hours=24)

_COLUMNS = IdempotencyKey.__table__.c
_NAMESPACE_COLUMNS = ("user_id", "organization_id", "operation_id", "key_hash")


@dataclass(frozen=True)
class IdempotencyNamespace:
    """What a key belongs to: the same key of somebody else, elsewhere, or for something else is another."""

    user_id: UUID
    organization_id: UUID | None
    operation_id: str
    key_hash: str

    def columns(self) -> dict[str, Any]:
        """The columns that are unique together."""
        return {
            "user_id": self.user_id,
            "organization_id": self.organization_id or NO_ORGANIZATION_ID,
            "operation_id": self.operation_id,
            "key_hash": self.key_hash,
        }

    def lock_id(self) -> int:
        """What the slot is called as a lock. Two that were called the same would be in each other's way."""
        name = " ".join(map(str, self.columns().values())).encode("ascii")
        return int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)


@dataclass
class IdempotencyLock:
    """The right to do the work of a key: until the running transaction ends, or the lease of its row."""

    namespace: IdempotencyNamespace
    fingerprint: str
    token: UUID
    scope_id: UUID | None = None
    """The organization or account on whose rows the work was allowed; the worker writes it down here."""
    row_id: UUID | None = None
    """The row by which the turn is held beyond its transaction."""
    stale_row: tuple[UUID, UUID] | None = None
    """The id and token of a row that is over. It makes room for the row of this turn, not before: what the
    work did may be undone, and the refusal kept all the same."""


class RequestInProgress(Exception):
    """Somebody else has the turn."""


def acquire(namespace: IdempotencyNamespace, fingerprint: str) -> IdempotencyLock | Row[Any]:
    """The turn for a key that is new, forgotten, or left behind by who died; else the row in the way.

    In the running transaction, which must be one that writes. AtWork while another one has the turn.
    """
    values = {**namespace.columns(), "number": namespace.lock_id()}
    connection = current_session().connection()
    row = connection.execute(_build_select(connection.dialect.name), values).one()
    if row.id is not None and not _is_reclaimable(row, fingerprint, utc_now()):
        return row
    if not row.is_mine:
        raise RequestInProgress
    return IdempotencyLock(
        namespace, fingerprint, uuid4(), stale_row=None if row.id is None else (row.id, row.turn)
    )


@cache
def _build_select(dialect: str) -> Executable:
    """Select the row of a slot, nulls if there is none, and whether the turn is the running transaction's."""
    is_mine: Any = true()
    if dialect == "postgresql":
        is_mine = func.pg_try_advisory_xact_lock(bindparam("number"))
    always = select(literal_column("1")).subquery()
    of_slot = [_COLUMNS[name] == bindparam(name) for name in _NAMESPACE_COLUMNS]
    columns = (_COLUMNS[name] for name in ("id", "turn", "fingerprint", "lease_expires_at", "expires_at"))
    answer = (_COLUMNS[name] for name in ("scope_id", "status", "headers", "body"))
    found = select(is_mine.label("is_mine"), *columns, *answer)
    return found.select_from(always.outerjoin(IdempotencyKey, and_(*of_slot)))


def _is_reclaimable(row: Row[Any], fingerprint: str, now: datetime) -> bool:
    left_behind = row.status is None and row.lease_expires_at <= now
    return row.expires_at <= now or (left_behind and hmac.compare_digest(row.fingerprint, fingerprint))


def persist_lock(lock: IdempotencyLock) -> None:
    """Hold a turn that was just taken until its lease is over, beyond the running transaction."""
    lock.row_id = new_id()
    if not _insert(lock, lock.row_id, None, None, None):
        raise RequestInProgress


def store_response(lock: IdempotencyLock, status: int, headers: dict[str, str], body: bytes) -> bool:
    """Keep the answer in the running transaction; False when somebody else has the turn, or had it."""
    if lock.row_id is None:
        return _insert(lock, new_id(), status, headers, body)
    kept = {"scope_id": lock.scope_id, "status": status, "headers": headers, "body": body}
    mine = update(IdempotencyKey).where(*_owned_by(lock.row_id, lock.token))
    return affected_one(current_session().connection().execute(mine.values(kept)))


def release(lock: IdempotencyLock) -> None:
    """Free the key: the work did not happen, and the next send is the first."""
    if lock.row_id is not None:
        _delete(lock.row_id, lock.token)


def _insert(
    lock: IdempotencyLock,
    row_id: UUID,
    status: int | None,
    headers: dict[str, str] | None,
    body: bytes | None,
) -> bool:
    """Write down the row of a turn; False when another one is there by now."""
    if lock.stale_row is not None:
        _delete(*lock.stale_row)
    now, connection = utc_now(), current_session().connection()
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
    return affected_one(connection.execute(_build_insert(connection.dialect.name), row))


@cache
def _build_insert(dialect: str) -> Executable:
    # No error when the key is there: PostgreSQL would take the whole transaction for failed.
    insert: Executable = insert_for_dialect(dialect, IdempotencyKey).on_conflict_do_nothing()
    return insert.execution_options(preserve_rowcount=True)


def _delete(row_id: UUID, token: UUID) -> None:
    current_session().connection().execute(delete(IdempotencyKey).where(*_owned_by(row_id, token)))


def _owned_by(row_id: UUID, token: UUID) -> tuple[Any, ...]:
    """The row as the turn of that token left it."""
    return IdempotencyKey.id == row_id, IdempotencyKey.turn == token


def delete_expired_keys(database: Database) -> int:
    """Delete the keys whose retention is over and return their number."""
    return delete_in_batches(database, [IdempotencyKey.id], IdempotencyKey.expires_at <= utc_now())
