"""Parse the Retry-After header of another server (RFC 9110, section 10.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime

from db.base import utc_now

MAX_RETRY_AFTER = timedelta(hours=24)
"""Longer delays count as this one."""


def parse_retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Return the delay of a Retry-After header, or None if it is absent or malformed."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), int(MAX_RETRY_AFTER.total_seconds())))
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a year of any number of digits is parsed
        return None
    return min(date - utc_now(), MAX_RETRY_AFTER) if date.tzinfo is not None else None
