"""Format a review as text for the terminal and as Markdown for a pull request."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from tools.review.change import Change
from tools.review.changelog import render_changelog
from tools.review.checks import Finding
from tools.review.review import Comparison, Review

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
MAX_COMMENT = 60_000
"""GitHub rejects comments of more than 65,536 characters."""
COMMENT_MARK = "<!-- contract-review -->\n"
SHORTENED = "\n\nThe report is too long for a comment: the summary of the workflow run shows all of it.\n"
SEE_MARKDOWN = 'see ARGS="--markdown FILE"'
TO_ALLOW = "To allow these breaks, write the reason and add this to openapi/allowed-breaks.yaml"
STOPPED = "The review stopped: fix these first, the other checks need a contract without them."


class Group(NamedTuple):
    """Changes that belong together: a headline, and lines with the place in the sources, if it is known."""

    headline: str
    lines: list[tuple[str, str]]


class Alert(NamedTuple):
    """A finding or an important change, for tools that show it beside the line: "error" or "warning"."""

    level: str
    title: str
    place: str
    text: str


def render_text(review: Review, seconds: float) -> str:
    """Return the text for the terminal. It is short if there are no findings.

    Of the earlier changes since the last release, it lists only the breaking ones that nothing allows.
    """
    lines = [f"{name:<15}{state}" for name, state in list_facts(review)]
    for title, findings in review.tables():
        if findings:
            lines += ["", title, *_list_findings(findings)]
    distinct = list(review.list_distinct_comparisons())
    for comparison in distinct:
        lines += ["", f"Changes for clients {comparison.since}:"]
        if comparison is review.comparisons[0] and review.is_compared_with_branch:
            lines += _render_not_allowed(comparison)
        else:
            lines += _render_changes_text(comparison)
    failures = [f"FAILED: {one}" for one in review.failures]
    if entries := review.entries_to_allow:
        lines += ["", f"{TO_ALLOW}:", *(f"  {line}" for line in entries)]
    return "\n".join([*lines, "", *failures, f"{format_verdict(review)} ({seconds:.1f} s)"])


def _list_findings(findings: list[Finding]) -> Iterator[str]:
    for one in findings[:MAX_LISTED]:
        yield f"  {one.text}\n      {one.place}".rstrip()
    if len(findings) > MAX_LISTED:
        yield f"  ... and {len(findings) - MAX_LISTED} more"


def render_stopped(findings: list[Finding]) -> str:
    """Return the text of a review that stopped early."""
    return "\n".join([*_list_findings(findings), "", f"FAILED: {STOPPED}"])


def render_stopped_markdown(findings: list[Finding]) -> str:
    """Return the report of a review that stopped early, for a pull request."""
    listed = [f"- {' '.join(one.text.split())}{_format_place(one.place)}" for one in findings]
    return "\n".join(["# Review of the contract", "", f"**{STOPPED}**", "", *listed]) + "\n"


def _render_not_allowed(comparison: Comparison) -> Iterator[str]:
    not_allowed = _leave_not_allowed(comparison)
    yield from _render_changes_text(not_allowed)
    if others := len(comparison.changes or []) - len(not_allowed.breaking):
        yield f"  {others} {'others' if not_allowed.breaking else 'changes'}: {SEE_MARKDOWN}"


def _leave_not_allowed(comparison: Comparison) -> Comparison:
    not_allowed = [one for one in comparison.breaking if one not in comparison.reasons]
    return replace(comparison, changes=not_allowed)


def _render_changes_text(comparison: Comparison) -> Iterator[str]:
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
            yield f"          {comparison.places.get(change, '')}"
        if len(wording) > MAX_LISTED:
            yield f"    ... and {len(wording) - MAX_LISTED} more: {SEE_MARKDOWN}"


def render_markdown(review: Review) -> str:
    """Return the review for a pull request. Findings come first, then the changes of the branch.

    Of the earlier changes since the last release, those that break clients have their places; the changelog
    summarizes the others.
    """
    lines = ["# Review of the contract", "", f"**{format_verdict(review)}**", ""]
    lines += [*(f"- {one}" for one in review.failures), ""] * bool(review.failures)
    if entries := review.entries_to_allow:
        lines += [
            "<details>",
            f"<summary>{TO_ALLOW}</summary>",
            "",
            "```yaml",
            *entries,
            "```",
            "",
            "</details>",
            "",
        ]
    lines += ["| | |", "|---|---|", *(f"| {name} | {state} |" for name, state in list_facts(review)), ""]
    for title, findings in review.tables():
        if findings:
            lines += [f"## {title}", "", *(f"- {one.text}{_format_place(one.place)}" for one in findings), ""]
    for comparison in review.list_distinct_comparisons():
        lines += [f"## Changes for clients {comparison.since}", ""]
        if comparison is review.comparisons[0] and review.is_compared_with_branch:
            lines += render_changes_markdown(_leave_not_allowed(comparison))
            lines += ["<details>", "<summary>The section of the changelog</summary>", ""]
            lines += [*render_changelog(comparison), "</details>", ""]
        else:
            lines += render_changes_markdown(comparison)
    return "\n".join(lines).rstrip() + "\n"


def render_changes_markdown(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of a comparison, with a heading for each impact and places where they are known."""
    for impact, groups in group_by_impact(comparison, mark="`"):
        yield from (f"### {TITLES[impact]}", "")
        for group in groups:
            yield f"- {group.headline}"
            yield from (f"  - {text}{_format_place(place)}" for text, place in group.lines)
        yield ""
    if wording := [one for one in comparison.changes or [] if one.impact == "wording"]:
        summary = f"Descriptions and examples changed: {len(wording)}"
        yield from ("<details>", f"<summary>{summary}</summary>", "")
        for change in wording[:MAX_WORDINGS]:
            place = _format_place(comparison.places.get(change, ""))
            yield f"- {_format_wording(change, comparison)}{place}"
        yield from [f"- ... and {len(wording) - MAX_WORDINGS} more"] * (len(wording) > MAX_WORDINGS)
        yield from ("", "</details>", "")


def _format_wording(change: Change, comparison: Comparison) -> str:
    """Return the text of a change of wording, with the operation if the text does not name it."""
    if len(change.operations) != 1 or not change.text.startswith(("The ", "(")):
        return change.text
    return f"{comparison.ids.get(change.operations[0], change.operations[0])}: {change.text}"


def render_comment(markdown: str, limit: int = MAX_COMMENT) -> str:
    """Return a report as a comment on GitHub: marked, and cut after a line if it is too long.

    The workflow finds the comment of an earlier run by the mark and updates it.
    """
    markdown = COMMENT_MARK + markdown
    if len(markdown) <= limit:
        return markdown
    kept = markdown[: limit - len(SHORTENED)].rpartition("\n")[0]
    is_open = kept.rfind("<details>") > kept.rfind("</details>")
    return kept + "\n\n</details>" * is_open + SHORTENED


def list_alerts(review: Review) -> Iterator[Alert]:
    """Yield the findings, the changes that break clients of the last release, and warnings.

    A warning is about a break that is allowed or about wider access. If the author's own changes are known,
    it is about one of them: a pull request shows ten warnings, and earlier changes were reviewed before.
    """
    for title, findings in review.tables():
        for one in findings:
            yield Alert("error", title, one.place, one.text)
    released = review.comparisons[0]
    broken = [change for change in released.breaking if change not in released.reasons]
    yield from (_alert("error", change, released) for change in broken)
    own = review.comparisons[-1] if review.is_compared_with_branch else released
    # The branch may change more operations than the release has.
    told = {(change.text, released.places.get(change, "")) for change in broken}
    for change in own.changes or []:
        is_told = (change.text, own.places.get(change, "")) in told
        if change.impact in ("breaking", "security") and not is_told:
            yield _alert("warning", change, own)


def _alert(level: str, change: Change, comparison: Comparison) -> Alert:
    return Alert(level, TITLES[change.impact], comparison.places.get(change, ""), change.text)


def list_stopped_alerts(findings: list[Finding]) -> Iterator[Alert]:
    """Yield the findings of a review that stopped early."""
    for one in findings:
        yield Alert("error", "Contract", one.place, one.text)


def format_annotation(alert: Alert) -> str:
    """Return one annotation: a command that GitHub Actions shows beside the line, with escaped characters."""
    file, _, line = alert.place.rpartition(":")
    properties = {"file": file, "line": line} if file else {}
    listed = ",".join(
        f"{name}={_escape(value, ':,')}" for name, value in {**properties, "title": alert.title}.items()
    )
    return f"::{alert.level} {listed}::{_escape(alert.text)}"


def _escape(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _format_place(place: str) -> str:
    return f" ({place})" if place else ""


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
    return change.text + example, place + more


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
        texts = " ".join(one.text for one in same)
        yield f"{format_headline(names, comparison, mark)}: {texts}", ", ".join(places)


def format_headline(names: tuple[str, ...], comparison: Comparison, mark: str = "") -> str:
    """Return the headline of a group of operations. It names all of them."""
    if not names or (len(names) > 1 and comparison.common <= set(names)):
        return "All operations"
    if len(names) == 1:
        return f"{mark}{names[0]}{mark} {comparison.ids.get(names[0], '')}".rstrip()
    others = comparison.common - set(names)
    is_most = bool(others) and len(others) < len(names) / 4
    listed = ", ".join(comparison.ids.get(name) or name for name in (sorted(others) if is_most else names))
    return f"{len(names)} operations{', all except ' if is_most else ': '}{listed}"


def list_facts(review: Review) -> Iterator[tuple[str, str]]:
    """Yield the name and the result of each check."""
    bundle = "openapi.json is STALE: run `make openapi`" if review.is_stale else "openapi.json is up to date"
    yield "Contract", f"{review.operations_count} operations, version {review.version}, {bundle}"
    for name, findings in review.findings.items():
        yield name, _format_count(findings)
    yield "Handlers", _format_count(review.missing_handlers, "every operation has a matching handler")
    yield "Examples", _format_count(review.missing_examples, "every request and response has one")
    for comparison in review.comparisons:
        yield comparison.name, comparison.summary()


def _format_count(findings: list[Finding], passed: str = "no findings") -> str:
    noun = "finding" if len(findings) == 1 else "findings"
    return f"{len(findings)} {noun}, see below" if findings else passed


def format_verdict(review: Review) -> str:
    """Return the verdict in one sentence."""
    return "The contract does not pass." if review.failures else "The contract passes."
