"""What makes a request that carries a key happen once: whose turn it is, and the answer for who asks again.

A turn is taken in a short transaction of its own before the work, and the answer is kept in the transaction
of the work itself: either both are there or neither. Whoever dies in between loses the turn with its lease.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from db.base import changed_one, utc_now
from db.models.idempotency import PERSONAL, IdempotencyKey
from db.session import Database, session

LEASE = timedelta(seconds=60)
"""Longer than a request may take. One that takes longer all the same keeps nothing: its turn may be over."""
KEPT_FOR = timedelta(hours=24)
FORGET_BATCH = 500

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True)
class Slot:
    """What a key belongs to: the same key of somebody else, elsewhere, or for something else is another."""

    user_id: UUID
    organization_id: UUID | None
    operation_id: str
    key_hash: str

    def columns(self) -> dict[str, Any]:
        """The columns that are unique together."""
        return {
            "user_id": self.user_id,
            "organization_id": self.organization_id or PERSONAL,
            "operation_id": self.operation_id,
            "key_hash": self.key_hash,
        }


@dataclass
class Turn:
    """The right to do the work of a key, until its lease is over."""

    row_id: UUID
    token: UUID
    scope_id: UUID | None = None
    """The organization or account on whose rows the work was allowed; the worker writes it down here."""


def take_turn(slot: Slot, fingerprint: str) -> Turn | IdempotencyKey:
    """The turn for a key that is new, forgotten, or left behind by who died; else the row in the way.

    The caller commits before the work begins.
    """
    now, turn = utc_now(), Turn(uuid4(), uuid4())
    fresh = {
        "created_at": now,
        "fingerprint": fingerprint,
        "turn": turn.token,
        "lease_expires_at": now + LEASE,
        "expires_at": now + KEPT_FOR,
        "scope_id": None,
        "status": None,
        "headers": None,
        "body": None,
    }
    # No error when the key is there: PostgreSQL would take the whole transaction for failed.
    insert = _INSERT[session().get_bind().dialect.name](IdempotencyKey).on_conflict_do_nothing()
    values = {"id": turn.row_id, **slot.columns(), **fresh}
    if session().scalar(insert.values(values).returning(IdempotencyKey.id)) is not None:
        return turn
    there = select(IdempotencyKey).filter_by(**slot.columns()).with_for_update()
    row = session().scalars(there).one_or_none()
    if row is None:
        # Its turn was given up between the two statements: now it is as new.
        return take_turn(slot, fingerprint)
    if not _is_over(row, fingerprint, now):
        return row
    # Row and writer are locked, so of two that find it left behind one takes over.
    for name, value in fresh.items():
        setattr(row, name, value)
    turn.row_id = row.id
    return turn


def _is_over(row: IdempotencyKey, fingerprint: str, now: datetime) -> bool:
    left_behind = row.status is None and row.lease_expires_at <= now
    return row.expires_at <= now or (left_behind and hmac.compare_digest(row.fingerprint, fingerprint))


def keep_answer(turn: Turn, status: int, headers: dict[str, str], body: bytes) -> bool:
    """Keep the answer in the running transaction; False when the turn is over and somebody else has it."""
    kept = {"scope_id": turn.scope_id, "status": status, "headers": headers, "body": body}
    changed = session().execute(update(IdempotencyKey).where(*_mine(turn)).values(kept))
    return changed_one(changed)


def give_up(turn: Turn) -> None:
    """Free the key: the work did not happen, and the next send is the first."""
    session().execute(delete(IdempotencyKey).where(*_mine(turn)))


def _mine(turn: Turn) -> tuple[Any, ...]:
    return IdempotencyKey.id == turn.row_id, IdempotencyKey.turn == turn.token


def forget_expired(database: Database) -> int:
    """Delete the keys that were kept long enough, some at a time; how many there were."""
    over = select(IdempotencyKey.id).where(IdempotencyKey.expires_at <= utc_now()).order_by(IdempotencyKey.id)
    with database.transaction(write=False) as reading:
        if reading.scalar(over.limit(1)) is None:
            return 0
    forgotten = 0
    while True:
        with database.transaction(write=True) as writing:
            # A key that somebody sends again just now, or that another process forgets, is left to them.
            some = over.limit(FORGET_BATCH).with_for_update(skip_locked=True)
            ids = writing.scalars(some).all()
            writing.execute(delete(IdempotencyKey).where(IdempotencyKey.id.in_(ids)))
        forgotten += len(ids)
        if len(ids) < FORGET_BATCH:
            return forgotten
