"""Change the `metadata` of resources: key-value pairs that belong to the client and have no effect."""

from __future__ import annotations

from collections.abc import Mapping

from db.base import Labeled
from db.errors import Conflict

MAX_KEYS = 50


class TooManyMetadataKeys(Conflict):
    """The metadata of a row would have more than `MAX_KEYS` keys."""

    code = "too_many_metadata_keys"
    default_detail = f"`metadata` would have more than {MAX_KEYS} keys: delete keys by setting them to null"


def merge_metadata(row: Labeled, changes: Mapping[str, str | None]) -> None:
    """Merge changes into the metadata of a row, which has none yet if it is new (RFC 7396).

    Args:
        row: The row. Lock it first if it is stored: what another request changes meanwhile would be lost.
        changes: The new values by key. Absent keys are unchanged, and None deletes a key.

    Raises:
        TooManyMetadataKeys: More keys would remain than a row can have.
    """
    # A new object: the session does not see changes within the old one.
    row.custom_metadata = build_merged(row.custom_metadata or {}, changes)


def build_merged(metadata: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return metadata with changes merged into them, as `merge_metadata`.

    Raises:
        TooManyMetadataKeys: More keys would remain than a row can have.
    """
    merged = {key: value for key, value in {**metadata, **changes}.items() if value is not None}
    if len(merged) > MAX_KEYS:
        raise TooManyMetadataKeys(pointer="/metadata", limit=MAX_KEYS)
    return merged
