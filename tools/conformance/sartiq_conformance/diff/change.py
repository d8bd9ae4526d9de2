"""One change of the contract, and what it means for clients and for the version of a release."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

IMPACTS = ("breaking", "security", "removed", "deprecated", "added", "changed", "imports", "wording")
"""The impacts, the most important one first."""
BUMPS = {
    "breaking": "major",
    "security": "minor",
    "removed": "minor",
    "deprecated": "minor",
    "added": "minor",
    "imports": "minor",
}


class Change(NamedTuple):
    """One change: its impact, the affected operations, a description, and its place in the bundle.

    `example` is a value, as JSON, that was valid before the change or is only valid after it. Equal changes
    of other operations are the same change: `more` are their places.
    """

    impact: str
    operations: tuple[str, ...]
    text: str
    pointer: str
    example: str = ""
    more: tuple[str, ...] = ()

    @property
    def times(self) -> int:
        """The number of operations, or groups of them, that changed in the same way."""
        return 1 + len(self.more)


def merge_changes(changes: Iterable[Change]) -> list[Change]:
    """Return the changes by importance. Equal ones of several operations are one."""
    merged: dict[tuple[str, str], dict[tuple[str, ...], Change]] = {}
    for change in sorted(set(changes), key=lambda one: (IMPACTS.index(one.impact), one)):
        merged.setdefault((change.impact, change.text), {}).setdefault(change.operations, change)
    return [
        first._replace(
            operations=tuple(dict.fromkeys(name for names in same for name in names)),
            example=next((one.example for one in (first, *others) if one.example), ""),
            more=tuple(one.pointer for one in others),
        )
        for same in merged.values()
        for first, *others in [same.values()]
    ]


def required_bump(changes: list[Change]) -> str | None:
    """Return the part of the version that a release must increase, or None if nothing has changed."""
    bumps = [BUMPS.get(change.impact, "patch") for change in changes]
    return next((bump for bump in ("major", "minor", "patch") if bump in bumps), None)
