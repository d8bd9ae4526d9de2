"""The breaking changes that openapi/allowed-breaks.yaml allows below version 1.0, each with a reason."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.conformance.sartiq_conformance.diff import accepted
from tools.conformance.sartiq_conformance.diff.accepted import LIFETIME, AcceptedChange
from tools.conformance.sartiq_conformance.diff.change import Change
from tools.review.shapes import find_shape_errors
from tools.review.source_map import SourceMap
from tools.review.tools import ROOT, ToolFailed
from tools.review.yaml_errors import YamlError, load_yaml

ALLOWED_BREAKS = ROOT / "openapi" / "allowed-breaks.yaml"
NEVER = datetime.date.max - LIFETIME
"""A day on which no entry is too long: an entry is valid for 90 days at most."""


def load_allowed_breaks(path: Path = ALLOWED_BREAKS) -> list[AcceptedChange]:
    """Return the changes that the file allows: an entry may list several with one reason.

    Raises:
        ToolFailed: An entry is not a change or several, a reason and a date.
    """
    if not path.exists():
        return []
    if errors := find_shape_errors(path.parent, path.name) or find_invalid_dates(path, NEVER):
        raise ToolFailed("\n".join(f"{one.file}:{one.line} {one.message}" for one in errors))
    return accepted.load_accepted_changes(path)


def find_invalid_dates(path: Path = ALLOWED_BREAKS, today: datetime.date | None = None) -> list[YamlError]:
    """Return the entries whose last day is no day, or too far away."""
    limit = (today or datetime.datetime.now(datetime.UTC).date()) + LIFETIME
    sources = SourceMap(path.parent)
    found = []
    for index, entry in enumerate(_read(path)):
        try:
            is_early = datetime.date.fromisoformat(entry["until"]) <= limit
        except ValueError:
            is_early = False
        if not is_early:
            file, _, line = sources.find_in_file(path.name, [str(index), "until"]).rpartition(":")
            text = (
                f"`until` is `{entry['until']}`: write a day of the next {LIFETIME.days} days, up to {limit}"
            )
            found.append(YamlError(file, int(line), text))
    return found


def _read(path: Path) -> list[Any]:
    return load_yaml(path) or [] if path.exists() else []


def clear_allowed_breaks(path: Path = ALLOWED_BREAKS) -> None:
    """Remove all entries and keep the comment at the start of the file."""
    if path.exists():
        comment = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        path.write_text("\n".join([*comment, "[]"]) + "\n", encoding="utf-8")


def split_allowed(
    changes: Sequence[Change], allowed: Sequence[AcceptedChange], released: str, ids: Mapping[str, str]
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
    reasons = accepted.find_reasons(breaking, allowed, ids)
    return [change for change in breaking if change not in reasons], reasons


def find_stale_entries(
    changes: Sequence[Change], allowed: Sequence[AcceptedChange], today: datetime.date, ids: Mapping[str, str]
) -> Iterator[str]:
    """Yield a sentence for each entry that has expired, or whose change or operations are others."""
    breaking = [change for change in changes if change.impact == "breaking"]
    return accepted.find_stale_entries(breaking, allowed, today, ids, "openapi/allowed-breaks.yaml")
