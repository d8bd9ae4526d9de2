"""Format a review as text for the terminal and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from tools.conformance.sartiq_conformance.diff.change import Change
from tools.conformance.sartiq_conformance.diff.report import (
    MAX_LISTED,
    TITLES,
    Comparison,
    format_place,
    render_changes_markdown,
    render_changes_text,
)
from tools.review.changelog import render_changelog
from tools.review.checks import Finding
from tools.review.review import Review

MAX_COMMENT = 60_000
"""GitHub rejects comments of more than 65,536 characters."""
COMMENT_MARK = "<!-- contract-review -->\n"
SHORTENED = "\n\nThe report is too long for a comment: the summary of the workflow run shows all of it.\n"
SEE_MARKDOWN = 'see ARGS="--markdown FILE"'
TO_ALLOW = "To allow these breaks, write the reason and add this to openapi/allowed-breaks.yaml"
STOPPED = "The review stopped: fix these first, the other checks need a contract without them."


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
            lines += render_changes_text(comparison, SEE_MARKDOWN)
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
    listed = [f"- {' '.join(one.text.split())}{format_place(one.place)}" for one in findings]
    return "\n".join(["# Review of the contract", "", f"**{STOPPED}**", "", *listed]) + "\n"


def _render_not_allowed(comparison: Comparison) -> Iterator[str]:
    not_allowed = _leave_not_allowed(comparison)
    yield from render_changes_text(not_allowed, SEE_MARKDOWN)
    if others := len(comparison.changes or []) - len(not_allowed.breaking):
        yield f"  {others} {'others' if not_allowed.breaking else 'changes'}: {SEE_MARKDOWN}"


def _leave_not_allowed(comparison: Comparison) -> Comparison:
    not_allowed = [one for one in comparison.breaking if one not in comparison.reasons]
    return replace(comparison, changes=not_allowed)


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
            lines += [f"## {title}", "", *(f"- {one.text}{format_place(one.place)}" for one in findings), ""]
    for comparison in review.list_distinct_comparisons():
        lines += [f"## Changes for clients {comparison.since}", ""]
        if comparison is review.comparisons[0] and review.is_compared_with_branch:
            lines += render_changes_markdown(_leave_not_allowed(comparison))
            lines += ["<details>", "<summary>The section of the changelog</summary>", ""]
            lines += [*render_changelog(comparison), "</details>", ""]
        else:
            lines += render_changes_markdown(comparison)
    return "\n".join(lines).rstrip() + "\n"


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
