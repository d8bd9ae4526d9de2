"""Estimate when a generation in the queue starts."""

from __future__ import annotations

from datetime import datetime, timedelta

from db.base import utc_now

MAX_WAIT = timedelta(days=30)
"""A longer wait is no estimate."""


def estimate_start(queue_position: int | None, start_interval: float | None) -> datetime | None:
    """Return when a pending generation probably starts, in whole minutes, or None if nothing tells.

    Minutes, because a representation that changed with each request would have no use for its ETag.

    Args:
        queue_position: The position in the queue, from 1; None if the generation is not pending.
        start_interval: The mean time between two starts, in seconds; None if no generation was completed.
    """
    if queue_position is None or start_interval is None:
        return None
    wait = timedelta(seconds=queue_position * max(0.0, start_interval))
    if wait > MAX_WAIT:
        return None
    return (utc_now() + wait).replace(second=0, microsecond=0) + timedelta(minutes=1)
