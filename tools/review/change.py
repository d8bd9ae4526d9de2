"""One change of the contract, and what it means for clients and for the version of a release."""

from __future__ import annotations

from typing import NamedTuple

IMPACTS = ("breaking", "security", "deprecated", "added", "changed", "imports", "wording")
"""The impacts, the most important one first."""
BUMPS = {
    "breaking": "major",
    "security": "minor",
    "deprecated": "minor",
    "added": "minor",
    "imports": "minor",
}


class Change(NamedTuple):
    """One change: its impact, the affected operations, a description, and its place in the bundle."""

    impact: str
    operations: tuple[str, ...]
    text: str
    pointer: str


def required_bump(changes: list[Change]) -> str | None:
    """Return the part of the version that a release must increase, or None if nothing has changed."""
    bumps = [BUMPS.get(change.impact, "patch") for change in changes]
    return next((bump for bump in ("major", "minor", "patch") if bump in bumps), None)
