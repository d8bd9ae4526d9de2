"""The breaking changes that openapi/allowed-breaks.yaml allows below version 1.0, each with a reason."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.tools.review.change import Change
from tests.tools.review.tools import ROOT, ToolFailed

ALLOWED_BREAKS = ROOT / "openapi" / "allowed-breaks.yaml"


class AllowedBreak(NamedTuple):
    """One entry: the exact text of a change, why it is allowed, and the last day on which it is.

    A text that occurs for several operations needs `operations`, the operationIds of the change.
    """

    change: str
    reason: str
    until: datetime.date
    operations: Sequence[str] = ()


def load_allowed_breaks(path: Path = ALLOWED_BREAKS) -> list[AllowedBreak]:
    """Return the entries of the file.

    Raises:
        ToolFailed: An entry is not a change, a reason and a date.
    """
    entries: list[Any] = (yaml.safe_load(path.read_text(encoding="utf-8")) or []) if path.exists() else []
    breaks = []
    for number, entry in enumerate(entries, 1):
        try:
            allowed = AllowedBreak(**entry)
            is_valid = (
                bool(allowed.change and allowed.reason.strip()) and type(allowed.until) is datetime.date
            )
        except (TypeError, AttributeError):
            is_valid = False
        if not is_valid:
            raise ToolFailed(f"{path.name}: entry {number} needs `change`, `reason`, `until`, a date.")
        breaks.append(allowed)
    return breaks


def clear_allowed_breaks(path: Path = ALLOWED_BREAKS) -> None:
    """Remove all entries and keep the comment at the start of the file."""
    if path.exists():
        comment = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        path.write_text("\n".join([*comment, "[]"]) + "\n", encoding="utf-8")


def split_allowed(
    changes: Sequence[Change], allowed: Sequence[AllowedBreak], released: str, ids: Mapping[str, str]
) -> tuple[list[Change], dict[Change, str]]:
    """Return the breaking changes that are not allowed, and the others with their reasons.

    Args:
        changes: All changes since the release.
        released: The version of the release. From 1.0 on nothing is allowed.
        ids: The operationIds by `METHOD path`.
    """
    breaking = [change for change in changes if change.impact == "breaking"]
    if int(released.split(".")[0] or 0) >= 1:
        return breaking, {}
    reasons = {
        change: one.reason
        for one in allowed
        if len({change.operations for change in find_changes(breaking, one, ids)}) == 1
        for change in find_changes(breaking, one, ids)
    }
    return [change for change in breaking if change not in reasons], reasons


def find_changes(
    breaking: Sequence[Change], allowed: AllowedBreak, ids: Mapping[str, str]
) -> Iterator[Change]:
    """Yield the changes that an entry is about."""
    for change in breaking:
        operations = {ids.get(name, name) for name in change.operations}
        if change.text == allowed.change and (
            not allowed.operations or operations == set(allowed.operations)
        ):
            yield change


def find_stale_entries(
    changes: Sequence[Change], allowed: Sequence[AllowedBreak], today: datetime.date, ids: Mapping[str, str]
) -> Iterator[str]:
    """Yield a sentence for each entry that has expired, or that no change or several changes match."""
    breaking = [change for change in changes if change.impact == "breaking"]
    for one in allowed:
        count = len({change.operations for change in find_changes(breaking, one, ids)})
        if count == 0:
            yield f"openapi/allowed-breaks.yaml allows a change that was not made, remove it: {one.change}"
        elif count > 1:
            yield (
                f"openapi/allowed-breaks.yaml allows {count} changes by one text, add `operations`: "
                f"{one.change}"
            )
        elif one.until < today:
            yield f"openapi/allowed-breaks.yaml allows this change until {one.until} only: {one.change}"
