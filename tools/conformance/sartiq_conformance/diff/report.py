"""Format the changes between two documents as text for a terminal, as Markdown, and for programs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from .change import Change
from .documents import Node
from .usage import operation_ids_by_path

TITLES = {
    "breaking": "Breaking",
    "security": "Security-relevant: more access than before",
    "removed": "Removed after the sunset",
    "deprecated": "Deprecated",
    "added": "Added",
    "changed": "Changed, compatible",
    "imports": "Import paths of generated clients",
}
MIN_SHARED = 5
"""A compatible change of at least this number of schemas is one entry, which lists their names."""
SCHEMA_STATEMENT = re.compile(r"(?P<name>`[^`]+`): (?P<statement>.+)")
MAX_LISTED = 30
MAX_WORDINGS = 300
SHORT_TITLES = {"security": "security-relevant", "imports": "of import paths", "wording": "of wording"}


@dataclass
class Comparison:
    """A comparison with an earlier contract. `changes` is None if there is no earlier contract."""

    name: str
    since: str
    version: str = ""
    changes: list[Change] | None = None
    ids: dict[str, str] = field(default_factory=dict)
    common: frozenset[str] = frozenset()
    """The operations that both contracts have."""
    places: dict[Change, str] = field(default_factory=dict)
    reasons: dict[Change, str] = field(default_factory=dict)
    """Why breaking changes are allowed."""
    uses: dict[Change, str] = field(default_factory=dict)
    """Who uses what breaking changes break, if it is known."""

    def name_operations(self, base: Node, contract: Node) -> None:
        """Read the operationIds of both contracts."""
        old, new = operation_ids_by_path(base), operation_ids_by_path(contract)
        self.ids, self.common = old | new, frozenset(old.keys() & new.keys())

    @property
    def breaking(self) -> list[Change]:
        """Return the breaking changes."""
        return [change for change in self.changes or [] if change.impact == "breaking"]

    def summary(self) -> str:
        """Return a summary in one line."""
        if self.changes is None:
            return self.since
        counts: dict[str, int] = {}
        for change in self.changes:
            counts[change.impact] = counts.get(change.impact, 0) + 1
        text = ", ".join(f"{count} {SHORT_TITLES.get(impact, impact)}" for impact, count in counts.items())
        return f"{text or 'no changes'} {self.since}"


class Group(NamedTuple):
    """Changes that belong together: a headline, and lines with the place in the sources, if it is known."""

    headline: str
    lines: list[tuple[str, str]]


def render_changes_text(comparison: Comparison, see_more: str) -> Iterator[str]:
    """Yield the lines of a comparison for a terminal. `see_more` says where the texts that are cut are."""
    for impact, groups in group_by_impact(comparison):
        yield f"  {TITLES[impact]}"
        for group in groups:
            yield f"    {group.headline}"
            for text, place in group.lines:
                yield f"      {text}"
                yield from [f"          {place}"] * bool(place)
    if wording := [one for one in comparison.changes or [] if one.impact == "wording"]:
        yield f"  Descriptions and examples: {len(wording)}"
        for change in wording[:MAX_LISTED]:
            yield f"    {_format_wording(change, comparison)}"
            place = comparison.places.get(change, "")
            yield from [f"          {place}"] * bool(place)
        if len(wording) > MAX_LISTED:
            yield f"    ... and {len(wording) - MAX_LISTED} more: {see_more}"


def render_changes_markdown(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of a comparison, with a heading for each impact and places where they are known."""
    for impact, groups in group_by_impact(comparison, mark="`"):
        yield from (f"### {TITLES[impact]}", "")
        for group in groups:
            yield f"- {group.headline}"
            yield from (f"  - {text}{format_place(place)}" for text, place in group.lines)
        yield ""
    if wording := [one for one in comparison.changes or [] if one.impact == "wording"]:
        summary = f"Descriptions and examples changed: {len(wording)}"
        yield from ("<details>", f"<summary>{summary}</summary>", "")
        for change in wording[:MAX_WORDINGS]:
            place = format_place(comparison.places.get(change, ""))
            yield f"- {_format_wording(change, comparison)}{place}"
        yield from [f"- ... and {len(wording) - MAX_WORDINGS} more"] * (len(wording) > MAX_WORDINGS)
        yield from ("", "</details>", "")


def _format_wording(change: Change, comparison: Comparison) -> str:
    """Return the text of a change of wording, with the operation if the text does not name it."""
    if len(change.operations) != 1 or not change.text.startswith(("The ", "(")):
        return change.text
    return f"{comparison.ids.get(change.operations[0], change.operations[0])}: {change.text}"


def group_by_impact(comparison: Comparison, mark: str = "") -> Iterator[tuple[str, list[Group]]]:
    """Yield each impact with its changes: first those that many schemas share, and each reason once."""
    for impact in TITLES:
        matching = sorted(
            (one for one in comparison.changes or [] if one.impact == impact), key=lambda one: one.operations
        )
        shared, others = _split_shared(matching)
        reasons = dict.fromkeys(comparison.reasons[one] for one in others if one in comparison.reasons)
        groups = [
            Group(f"{len(names)} schemas: {statement}", [(", ".join(names), "")])
            for statement, names in shared.items()
        ]
        for reason in reasons:
            allowed = [one for one in others if comparison.reasons.get(one) == reason]
            groups.append(Group(f"Allowed: {reason}", list(_list_by_operations(allowed, comparison, mark))))
        rest = [one for one in others if one not in comparison.reasons]
        for names, changes in groupby(rest, lambda one: one.operations):
            lines = [_format_line(one, comparison) for one in changes]
            groups.append(Group(format_headline(names, comparison, mark), lines))
        if groups:
            yield impact, groups


def _format_line(change: Change, comparison: Comparison) -> tuple[str, str]:
    """Return the text of a change, with a value that shows the break, and its place."""
    example = f" For example: `{change.example}`." if change.example else ""
    place = comparison.places.get(change, "")
    more = f", and {len(change.more)} other places" if change.more and place else ""
    use = f" {comparison.uses[change]}" if change in comparison.uses else ""
    return change.text + example + use, place + more


def _split_shared(changes: list[Change]) -> tuple[dict[str, list[str]], list[Change]]:
    """Return the statements that many schemas share, with their names, and the other changes."""
    statements = defaultdict(list)
    for change in changes:
        if change.impact == "changed" and (found := SCHEMA_STATEMENT.fullmatch(change.text)):
            statements[found["statement"]].append(found["name"])
    shared = {
        statement: sorted(dict.fromkeys(names))
        for statement, names in statements.items()
        if len(names) >= MIN_SHARED
    }
    others = [
        change
        for change in changes
        if not (found := SCHEMA_STATEMENT.fullmatch(change.text)) or found["statement"] not in shared
    ]
    return shared, others


def _list_by_operations(
    changes: list[Change], comparison: Comparison, mark: str
) -> Iterator[tuple[str, str]]:
    for names, group in groupby(changes, lambda one: one.operations):
        same = list(group)
        places = dict.fromkeys(filter(None, (comparison.places.get(one) for one in same)))
        texts = " ".join(" ".join(filter(None, (one.text, comparison.uses.get(one)))) for one in same)
        yield f"{format_headline(names, comparison, mark)}: {texts}", ", ".join(places)


def format_headline(names: tuple[str, ...], comparison: Comparison, mark: str = "") -> str:
    """Return the headline of a group of operations. It names all of them."""
    if not names or (len(names) > 1 and comparison.common and comparison.common <= set(names)):
        return "All operations"
    if len(names) == 1:
        operation_id = comparison.ids.get(names[0], names[0])
        return f"{mark}{names[0]}{mark} {operation_id if operation_id != names[0] else ''}".rstrip()
    others = comparison.common - set(names)
    is_most = bool(others) and len(others) < len(names) / 4
    listed = ", ".join(comparison.ids.get(name) or name for name in (sorted(others) if is_most else names))
    return f"{len(names)} operations{', all except ' if is_most else ': '}{listed}"


def format_place(place: str) -> str:
    """Return a place in parentheses, or nothing."""
    return f" ({place})" if place else ""
