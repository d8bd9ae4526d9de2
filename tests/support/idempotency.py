"""Idempotency keys in the database, as tests look at them and put them back to a moment of their life."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import update

from db.models import IdempotencyKey
from handlers.app import Application

HEADER = "idempotency-key"


def update_key(app: Application, key: str, **columns: Any) -> int:
    """Set columns of the rows of a key; return how many rows there are."""
    named = IdempotencyKey.key_hash == hashlib.sha256(key.encode()).hexdigest()
    with app.database.transaction(write=True) as writing:
        return int(writing.execute(update(IdempotencyKey).where(named).values(**columns)).rowcount)


def mark_in_progress(app: Application, key: str) -> None:
    """Make it seem that the first request of a key is still at work."""
    assert update_key(app, key, status=None, headers=None, body=None, scope_id=None) == 1
