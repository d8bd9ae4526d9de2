"""Format the changes of a release for the people who use the API, on about one page.

A reviewer needs each change with its operations. A client needs what is new or different, each statement
once: the operations by path, the properties by schema, and no list of a hundred operations
that share a schema.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from tools.conformance.sartiq_conformance.diff.change import Change
from tools.conformance.sartiq_conformance.diff.report import TITLES as REPORT_TITLES
from tools.conformance.sartiq_conformance.diff.report import Comparison

TITLES = REPORT_TITLES | {"security": "Security-relevant"}
MAX_NAMES = 15
"""A compatible change of more schemas or operations says how many they are."""
PROPERTY = re.compile(r"`(?P<owner>\w+)\.(?P<name>[^`]+)` is new\.")
PARAMETER = re.compile(r"The (?:query|header|path|cookie) parameter (?P<name>`[^`]+`) is new\.")
PROBLEM_CODE = re.compile(r"The problem code (?P<name>`[^`]+`) is new\.")
ENTITY = re.compile(r"`\w+` is new\.")
SUBJECT = re.compile(r"(?P<kind>The (?:[a-z]+ )+)?(?P<name>`[^`]+`)(?P<statement>:? .+)")
VERB = re.compile(r"(?P<place>(?: of the response \S+)?) (?P<verb>is|was|has) ")
PLURALS = {"is": "are", "was": "were", "has": "have"}
COUNTABLE = ("parameter ", "header ", "link ", "permission ", "tag ")


def render_changelog(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the changes, with a heading for each impact."""
    changes = comparison.changes or []
    for impact, title in TITLES.items():
        matching = [one for one in changes if one.impact == impact]
        if not matching:
            continue
        yield from (f"### {title}", "")
        if impact == "added":
            matching = yield from _render_added(matching, comparison)
        for reason in dict.fromkeys(comparison.reasons[one] for one in matching if one in comparison.reasons):
            yield f"- {reason}"
            allowed = [one for one in matching if comparison.reasons.get(one) == reason]
            yield from (f"  - {line}" for line in list_statements(allowed, comparison))
        rest = [one for one in matching if one not in comparison.reasons]
        yield from (f"- {line}" for line in list_statements(rest, comparison))
        yield ""
    if count := sum(one.impact == "wording" for one in changes):
        noun = (
            "text of descriptions and examples differs"
            if count == 1
            else "texts of descriptions and examples differ"
        )
        yield from (f"{count:,} {noun}.", "")


class _Subjects(NamedTuple):
    """What one statement is about: names such as `Brand.name`, and operations if no name is a schema."""

    names: dict[str, None]
    operations: dict[str, None]


def list_statements(changes: Sequence[Change], comparison: Comparison) -> Iterator[str]:
    """Yield each statement once, with everything that it is about.

    A statement about a schema does not list the operations that use the schema.
    """
    statements: dict[tuple[str, str], _Subjects] = {}
    for change in changes:
        found = SUBJECT.fullmatch(change.text)
        key = (found["kind"] or "", found["statement"]) if found else ("", change.text)
        subjects = statements.setdefault(key, _Subjects({}, {}))
        if found:
            subjects.names[found["name"]] = None
        if key[0] or not found:
            subjects.operations.update(dict.fromkeys(change.operations))
    # Statements such as ": maxLength is ..." about the same properties become one.
    joined: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (kind, statement), subjects in statements.items():
        unique = () if statement.startswith(": ") else (statement,)
        listed = joined.setdefault((kind, tuple(subjects.names), (*unique, *subjects.operations)), [])
        listed.append(statement.removesuffix("."))
    limit = None if any(one.impact == "breaking" for one in changes) else MAX_NAMES
    for (kind, names, marks), listed in joined.items():
        first, *more = listed
        operations = marks if first.startswith(": ") else marks[1:]
        used = _join_operations(operations, comparison)
        sentence = "; ".join([_join_subject(kind, names, first, limit), *(one[2:] for one in more)])
        yield f"{sentence}{f' ({used})' if used else ''}."


def _join_subject(kind: str, names: Sequence[str], statement: str, limit: int | None) -> str:
    if len(names) > 1 and (not kind or kind.endswith(COUNTABLE)):
        kind = f"{kind.rstrip()}s " if kind else ""
        if found := VERB.match(statement):
            statement = f"{found['place']} {PLURALS[found['verb']]} {statement[found.end() :]}"
    return f"{kind}{_join(names, limit)}{statement}"


def _render_added(changes: list[Change], comparison: Comparison) -> Generator[str, None, list[Change]]:
    """Yield what is new by its kind, and return the other changes."""
    paths: dict[str, list[str]] = {}
    messages, codes, others = [], [], []
    properties: dict[str, list[str]] = {}
    parameters: dict[str, list[str]] = {}
    for change in changes:
        operation = change.operations[0] if change.operations else ""
        method, _, path = operation.partition(" ")
        if method == "WEBHOOK" and ENTITY.fullmatch(change.text):
            messages.append(f"`{path}`")
        elif operation in comparison.ids and change.text == f"`{comparison.ids[operation]}` is new.":
            paths.setdefault("/" + path.split("/")[1], []).append(f"`{comparison.ids[operation]}`")
        elif found := PROBLEM_CODE.fullmatch(change.text):
            codes.append(found["name"])
        elif found := PROPERTY.fullmatch(change.text):
            properties.setdefault(f"`{found['owner']}`", []).append(f"`{found['name']}`")
        elif found := PARAMETER.fullmatch(change.text):
            for one in change.operations:
                parameters.setdefault(f"`{comparison.ids.get(one, one)}`", []).append(found["name"])
        else:
            others.append(change)
    if paths:
        yield f"- New operations: {sum(map(len, paths.values()))}"
        yield from (f"  - `{path}`: {', '.join(sorted(names))}" for path, names in sorted(paths.items()))
    if messages:
        yield f"- Messages of webhooks that the contract now describes: {', '.join(messages)}"
    if parameters:
        yield "- New parameters"
        yield from _list_by_members(parameters)
    if properties:
        yield "- New properties"
        yield from _list_by_members(properties)
    if codes:
        yield f"- New problem codes: {', '.join(codes)}"
    return others


def _list_by_members(table: dict[str, list[str]]) -> Iterator[str]:
    """Yield a line for each set of members, with all that have exactly this set."""
    owners: dict[tuple[str, ...], list[str]] = {}
    for owner, members in table.items():
        owners.setdefault(tuple(sorted(dict.fromkeys(members))), []).append(owner)
    yield from sorted(
        f"  - {', '.join(sorted(names))}: {', '.join(members)}" for members, names in owners.items()
    )


def _join(names: Iterable[str], limit: int | None) -> str:
    listed = list(names)
    if limit is None or len(listed) <= limit:
        return ", ".join(listed)
    return f"{', '.join(listed[:limit])} and {len(listed) - limit} others"


def _join_operations(operations: Iterable[str], comparison: Comparison) -> str:
    listed = list(operations)
    if len(listed) > 1 and comparison.common and comparison.common <= set(listed):
        return "all operations"
    if len(listed) > MAX_NAMES:
        return f"{len(listed)} operations"
    return ", ".join(f"`{comparison.ids.get(one, one)}`" for one in listed)
