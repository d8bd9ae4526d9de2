"""Encode and decode the cursors of lists."""

import base64
import uuid
from datetime import datetime


def write_cursor(created_at: datetime, row_id: uuid.UUID) -> str:
    return base64.urlsafe_b64encode(f"{created_at.isoformat()}|{row_id}".encode()).decode()


def read_cursor(cursor: str) -> tuple[datetime, uuid.UUID]:
    """Decode a cursor. Raises ValueError if it is invalid."""
    created_at, _, row_id = base64.urlsafe_b64decode(cursor).decode().partition("|")
    return datetime.fromisoformat(created_at), uuid.UUID(row_id)
