"""The breaking changes that openapi/allowed-breaks.yaml allows below version 1.0, each with a reason."""

from __future__ import annotations

import datetime
import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tools.review.change import Change
from tools.review.tools import ROOT, ToolFailed
from tools.review.yaml_errors import YamlError

ALLOWED_BREAKS = ROOT / "openapi" / "allowed-breaks.yaml"
LIFETIME = datetime.timedelta(days=90)
"""How long an entry that the review suggests is valid."""


class AllowedBreak(NamedTuple):
    """The exact text of a change, why it is allowed, and the last day on which it is.

    A text that occurs for several operations needs `operations`, the operationIds of the change.
    """

    change: str
    reason: str
    until: datetime.date
    operations: Sequence[str] = ()


def load_allowed_breaks(path: Path = ALLOWED_BREAKS) -> list[AllowedBreak]:
    """Return the changes that the file allows: an entry may list several with one reason.

    Raises:
        ToolFailed: An entry is not a change or several, a reason and a date.
    """
    if errors := find_invalid_entries(path):
        raise ToolFailed("\n".join(f"{one.file}:{one.line} {one.message}" for one in errors))
    return [
        AllowedBreak(
            change, entry["reason"], datetime.date.fromisoformat(entry["until"]), entry.get("operations", ())
        )
        for entry in _read(path)
        for change in _list_texts(entry["change"])
    ]


def find_invalid_entries(path: Path = ALLOWED_BREAKS) -> list[YamlError]:
    """Return what is wrong with the entries of the file, with their lines."""
    entries = _read(path)
    name = f"{path.parent.name}/{path.name}"
    if not isinstance(entries, list):
        return [YamlError(name, 1, "this file is a list: start each entry with `- change:`")]
    root = yaml.compose(path.read_text(encoding="utf-8"), yaml.CSafeLoader) if entries else None
    return [
        YamlError(name, node.start_mark.line + 1, message)
        for node, entry in zip(root.value if root else [], entries, strict=True)
        for message in _find_mistakes(entry)
    ]


def _read(path: Path) -> Any:
    """Return the entries with all values as texts, so that a date is one with and without quotes."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return yaml.load(text, yaml.BaseLoader) or []  # noqa: S506 - it makes texts, lists and maps only


def _find_mistakes(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield "an entry has `change`, `reason` and `until`"
        return
    if unknown := [name for name in entry if name not in AllowedBreak._fields]:
        fields = ", ".join(f"`{name}`" for name in AllowedBreak._fields)
        yield f"the entry has `{unknown[0]}`; an entry has only {fields}"
    if missing := [name for name in ("change", "reason", "until") if not entry.get(name)]:
        yield f"the entry needs {' and '.join(f'`{name}`' for name in missing)}"
    changes = _list_texts(entry.get("change", ""))
    if not all(isinstance(one, str) for one in [*changes, entry.get("reason", ""), entry.get("until", "")]):
        yield "`change` is a text or a list of texts, `reason` and `until` are texts"
    elif entry.get("until") and not _is_date(entry["until"]):
        yield f"`until` is `{entry['until']}`, which is not a date such as 2027-03-31"
    if not isinstance(entry.get("operations", []), list):
        yield "`operations` is a list of operationIds"


def _list_texts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


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
            texts = [change.text for change in breaking]
            near = [
                text for text in difflib.get_close_matches(one.change, texts, 1, 0.8) if text != one.change
            ]
            text = f"openapi/allowed-breaks.yaml allows a change that was not made, remove it: {one.change}"
            yield f"{text} The change that was made: {near[0]}" if near else text
        elif count > 1:
            yield (
                f"openapi/allowed-breaks.yaml allows {count} changes by one text, add `operations`: "
                f"{one.change}"
            )
        elif one.until < today:
            yield f"openapi/allowed-breaks.yaml allows this change until {one.until} only: {one.change}"


def format_entries(
    changes: Sequence[Change], breaking: Sequence[Change], ids: Mapping[str, str], today: datetime.date
) -> list[str]:
    """Return the lines that allow these changes, to be copied into the file. The author writes the reasons.

    Args:
        breaking: All breaking changes. A text that several of them have needs the names of the operations.
    """
    counts = Counter(text for _, text in {(change.operations, change.text) for change in breaking})
    unique = list(dict.fromkeys(change.text for change in changes if counts[change.text] == 1))
    end = [
        "  reason:  # why no client is affected, or what clients have to do",
        f"  until: {today + LIFETIME}",
    ]
    lines = ["- change:", *(f"    - {_quote(text)}" for text in unique), *end] if unique else []
    for operations, text in dict.fromkeys(
        (change.operations, change.text) for change in changes if counts[change.text] > 1
    ):
        names = ", ".join(sorted(ids.get(name, name) for name in operations))
        lines += [f"- change: {_quote(text)}", f"  operations: [{names}]", *end]
    return lines


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
