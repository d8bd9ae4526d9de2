"""Change stored idempotency keys to a state that a test needs."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import update

from db.models import IdempotencyKey
from handlers.app import Application

HEADER = "idempotency-key"


def update_key(app: Application, key: str, **columns: Any) -> int:
    """Set columns of the rows with a key; return the number of rows."""
    has_key = IdempotencyKey.key_hash == hashlib.sha256(key.encode()).hexdigest()
    with app.database.transaction(write=True) as writing:
        return int(writing.execute(update(IdempotencyKey).where(has_key).values(**columns)).rowcount)


def mark_in_progress(app: Application, key: str) -> None:
    """Mark the first request with a key as still running."""
    assert update_key(app, key, status=None, headers=None, body=None, scope_id=None) == 1
