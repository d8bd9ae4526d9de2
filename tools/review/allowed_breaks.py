"""The breaking changes that openapi/allowed-breaks.yaml allows below version 1.0, each with a reason."""

from __future__ import annotations

import datetime
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tools.review.change import Change
from tools.review.shapes import find_shape_errors
from tools.review.source_map import SourceMap
from tools.review.tools import ROOT, ToolFailed
from tools.review.yaml_errors import YamlError, load_yaml

ALLOWED_BREAKS = ROOT / "openapi" / "allowed-breaks.yaml"
LIFETIME = datetime.timedelta(days=90)
"""How long an entry is valid at most."""
NEVER = datetime.date.max - LIFETIME
"""A day on which no entry is too long."""
MAX_LISTED = 10
"""An entry for more operations says `all`."""


class AllowedBreak(NamedTuple):
    """The exact text of a change, why it is allowed, and the last day on which it is.

    A change that several operations have needs `operations`: their operationIds, or `all`.
    """

    change: str
    reason: str
    until: datetime.date
    operations: Sequence[str] | Literal["all"] = ()


def load_allowed_breaks(path: Path = ALLOWED_BREAKS) -> list[AllowedBreak]:
    """Return the changes that the file allows: an entry may list several with one reason.

    Raises:
        ToolFailed: An entry is not a change or several, a reason and a date.
    """
    if not path.exists():
        return []
    if errors := find_shape_errors(path.parent, path.name) or find_invalid_dates(path, NEVER):
        raise ToolFailed("\n".join(f"{one.file}:{one.line} {one.message}" for one in errors))
    return [
        AllowedBreak(
            change, entry["reason"], datetime.date.fromisoformat(entry["until"]), entry.get("operations", ())
        )
        for entry in _read(path)
        for change in _list_texts(entry["change"])
    ]


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


def _list_texts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


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
        for change in breaking
        if change.text == one.change and not _find_mismatch(change, one, ids)
    }
    return [change for change in breaking if change not in reasons], reasons


def _find_mismatch(change: Change, allowed: AllowedBreak, ids: Mapping[str, str]) -> str:
    """Return why an entry with the text of a change does not allow it, or an empty text."""
    names = {ids.get(name, name) for name in change.operations}
    if not allowed.operations:
        text = f"allows {change.times} changes by one text, add `operations` (operationIds, or `all`)"
        return text if change.times > 1 else ""
    listed = names if allowed.operations == "all" else set(allowed.operations)
    differences = [
        f"{verb} {', '.join(sorted(found))}"
        for verb, found in (("add", names - listed), ("remove", listed - names))
        if found
    ]
    return f"lists other `operations` than the change has, {' and '.join(differences)}" if differences else ""


def find_stale_entries(
    changes: Sequence[Change], allowed: Sequence[AllowedBreak], today: datetime.date, ids: Mapping[str, str]
) -> Iterator[str]:
    """Yield a sentence for each entry that has expired, or whose change or operations are others."""
    breaking = {change.text: change for change in changes if change.impact == "breaking"}
    for one in allowed:
        if one.change not in breaking:
            near = difflib.get_close_matches(one.change, breaking, 1, 0.8)
            text = f"openapi/allowed-breaks.yaml allows a change that was not made, remove it: {one.change}"
            yield f"{text} The change that was made: {near[0]}" if near else text
        elif mismatch := _find_mismatch(breaking[one.change], one, ids):
            yield f"openapi/allowed-breaks.yaml {mismatch}: {one.change}"
        elif one.until < today:
            yield f"openapi/allowed-breaks.yaml allows this change until {one.until} only: {one.change}"


def format_entries(changes: Sequence[Change], ids: Mapping[str, str], today: datetime.date) -> list[str]:
    """Return the lines that allow these changes, to be copied into the file. The author writes the reasons.

    A change that several operations have needs their names, or `all`.
    """
    texts: dict[str, list[str]] = {}
    for change in changes:
        names = sorted(ids.get(name, name) for name in change.operations)
        listed = "all" if len(names) > MAX_LISTED else f"[{', '.join(names)}]"
        texts.setdefault(listed if change.times > 1 else "", []).append(change.text)
    lines = []
    for listed, same in sorted(texts.items()):
        lines += ["- change:", *(f"    - {_quote(text)}" for text in same)]
        lines += [f"  operations: {listed}"] * bool(listed)
        lines += [
            "  reason:  # why no client is affected, or what clients have to do, in ten words or more",
            f"  until: {today + LIFETIME}",
        ]
    return lines


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
