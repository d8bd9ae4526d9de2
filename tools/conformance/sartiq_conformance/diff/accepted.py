"""Changes that are accepted: each has a reason, and a last day."""

from __future__ import annotations

import datetime
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .change import Change
from .documents import DocumentError
from .reading import load_file

LIFETIME = datetime.timedelta(days=90)
"""How long an entry that is suggested is valid."""
MAX_LISTED = 10
"""An entry for more operations says `all`."""
ENTRY = "a `change` (a text or a list of texts), a `reason` and a day `until`, and perhaps `operations`"


class AcceptedChange(NamedTuple):
    """The exact text of a change, why it is accepted, and the last day on which it is.

    A change that several operations have needs `operations`: their operationIds, or `all`.
    """

    change: str
    reason: str
    until: datetime.date
    operations: Sequence[str] | Literal["all"] = ()


def load_accepted_changes(path: Path) -> list[AcceptedChange]:
    """Return the changes that a file accepts: an entry may list several with one reason.

    Raises:
        DocumentError: The file cannot be read, or an entry has no change, reason or day. It is named.
    """
    entries = load_file(path)
    if not isinstance(entries, list | None):
        raise DocumentError(f"is not a list of entries: each has {ENTRY}")
    return [one for number, entry in enumerate(entries or [], 1) for one in _read_entry(entry, number)]


def _read_entry(entry: Any, number: int) -> Iterator[AcceptedChange]:
    if not isinstance(entry, dict) or not {"change", "reason", "until"} <= entry.keys():
        raise DocumentError(f"has a wrong entry {number}: it needs {ENTRY}")
    if unknown := sorted(entry.keys() - set(AcceptedChange._fields)):
        raise DocumentError(f"has an entry {number} with `{unknown[0]}`: it needs {ENTRY}")
    texts = entry["change"] if isinstance(entry["change"], list) else [entry["change"]]
    operations = entry.get("operations") or ()
    is_list = isinstance(operations, list | tuple) and all(isinstance(one, str) for one in operations)
    if not all(isinstance(one, str) for one in texts) or not (is_list or operations == "all"):
        raise DocumentError(f"has a wrong entry {number}: it needs {ENTRY}")
    if not isinstance(entry["reason"], str) or not entry["reason"].strip():
        raise DocumentError(f"has no `reason` in entry {number}: say why the change is accepted")
    try:
        until = datetime.date.fromisoformat(str(entry["until"]))
    except ValueError:
        text = f"has an entry {number} with `until: {entry['until']}`: write a day such as 2027-03-31"
        raise DocumentError(text) from None
    yield from (AcceptedChange(text, entry["reason"], until, operations) for text in texts)


def find_reasons(
    changes: Sequence[Change], accepted: Sequence[AcceptedChange], ids: Mapping[str, str]
) -> dict[Change, str]:
    """Return the changes that entries accept, with the reasons.

    Args:
        ids: The operationIds by `METHOD path`.
    """
    return {
        change: one.reason
        for one in accepted
        for change in changes
        if change.text == one.change and not _find_mismatch(change, one, ids)
    }


def _find_mismatch(change: Change, accepted: AcceptedChange, ids: Mapping[str, str]) -> str:
    """Return why an entry with the text of a change does not accept it, or an empty text."""
    names = {ids.get(name, name) for name in change.operations}
    if not accepted.operations:
        text = f"allows {change.times} changes by one text, add `operations` (operationIds, or `all`)"
        return text if change.times > 1 else ""
    listed = names if accepted.operations == "all" else set(accepted.operations)
    differences = [
        f"{verb} {', '.join(sorted(found))}"
        for verb, found in (("add", names - listed), ("remove", listed - names))
        if found
    ]
    return f"lists other `operations` than the change has, {' and '.join(differences)}" if differences else ""


def find_stale_entries(
    changes: Sequence[Change],
    accepted: Sequence[AcceptedChange],
    today: datetime.date,
    ids: Mapping[str, str],
    file: str,
) -> Iterator[str]:
    """Yield a sentence for each entry that has expired, or whose change or operations are others."""
    made = {change.text: change for change in changes}
    for one in accepted:
        if one.change not in made:
            near = difflib.get_close_matches(one.change, made, 1, 0.8)
            text = f"{file} allows a change that was not made, remove it: {one.change}"
            yield f"{text} The change that was made: {near[0]}" if near else text
        elif mismatch := _find_mismatch(made[one.change], one, ids):
            yield f"{file} {mismatch}: {one.change}"
        elif one.until < today:
            yield f"{file} allows this change until {one.until} only: {one.change}"


def format_entries(changes: Sequence[Change], ids: Mapping[str, str], today: datetime.date) -> list[str]:
    """Return the lines that accept these changes, to be copied into the file. The author writes the reasons.

    A change that several operations have needs their names, or `all`.
    """
    texts: dict[str, list[str]] = {}
    for change in changes:
        names = sorted(ids.get(name, name) for name in change.operations)
        listed = "all" if len(names) > MAX_LISTED else f"[{', '.join(map(_quote_name, names))}]"
        texts.setdefault(listed if change.times > 1 else "", []).append(change.text)
    lines = []
    for listed, same in sorted(texts.items()):
        lines += ["- change:", *(f"    - {json.dumps(text, ensure_ascii=False)}" for text in same)]
        lines += [f"  operations: {listed}"] * bool(listed)
        lines += [
            "  reason:  # why no client is affected, or what clients have to do, in ten words or more",
            f"  until: {today + LIFETIME}",
        ]
    return lines


def _quote_name(name: str) -> str:
    """Return an operationId, or the method and path of an operation without one, for a list in YAML."""
    return name if name.isidentifier() else json.dumps(name, ensure_ascii=False)
