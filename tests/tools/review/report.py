"""Format a review as text for the terminal and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from tests.tools.review.changes import Change
from tests.tools.review.checks import Finding
from tests.tools.review.review import Comparison, Review

TITLES = {
    "breaking": "Breaking",
    "deprecated": "Deprecated",
    "added": "Added",
    "changed": "Changed, compatible",
}
MAX_LISTED = 30
STOPPED = "The review stopped: fix these first, the other checks need a contract without them."


def render_text(review: Review, seconds: float) -> str:
    """Return the text for the terminal. It is short if there are no findings."""
    lines = [f"{name:<15}{state}" for name, state in list_facts(review)]
    for title, findings in review.tables():
        if findings:
            lines += ["", title, *_list_findings(findings)]
    for comparison in review.list_distinct_comparisons():
        lines += ["", f"Changes for clients {comparison.since}:", *_render_changes_text(comparison)]
    failures = [f"FAILED: {one}" for one in review.failures]
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


def _render_changes_text(comparison: Comparison) -> Iterator[str]:
    for impact, groups in group_by_impact(comparison.changes):
        yield f"  {TITLES[impact]}"
        for names, changes in groups:
            yield f"    {format_headline(names, comparison.ids)}"
            for change in changes:
                yield f"      {change.text}"
                yield f"          {comparison.places.get(change, '')}"
                if reason := comparison.reasons.get(change.text):
                    yield f"          Allowed: {reason}"
    if wording := [one for one in comparison.changes if one.impact == "wording"]:
        yield f"  Descriptions and examples changed: {len(wording)}"


def render_markdown(review: Review) -> str:
    """Return the review for a pull request."""
    lines = ["# Review of the contract", "", f"**{format_verdict(review)}**", ""]
    lines += [*(f"- {one}" for one in review.failures), ""] * bool(review.failures)
    lines += ["| | |", "|---|---|", *(f"| {name} | {state} |" for name, state in list_facts(review)), ""]
    for comparison in review.list_distinct_comparisons():
        lines += [
            f"## Changes for clients {comparison.since}",
            "",
            *render_changes_markdown(comparison),
        ]
    for title, findings in review.tables():
        if findings:
            lines += [f"## {title}", "", *(f"- {one.text}{_format_place(one.place)}" for one in findings), ""]
    return "\n".join(lines).rstrip() + "\n"


def render_changes_markdown(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of a comparison, with a heading for each impact and places where they are known."""
    for impact, groups in group_by_impact(comparison.changes):
        yield from (f"### {TITLES[impact]}", "")
        for names, changes in groups:
            yield f"- {format_headline(names, comparison.ids, mark='`')}"
            for change in changes:
                yield f"  - {change.text}{_format_place(comparison.places.get(change, ''))}"
                if reason := comparison.reasons.get(change.text):
                    yield f"    Reason: {reason}"
        yield ""
    if wording := [one for one in comparison.changes if one.impact == "wording"]:
        yield from (f"Descriptions and examples changed: {len(wording)}.", "")


def _format_place(place: str) -> str:
    return f" ({place})" if place else ""


def group_by_impact(
    changes: list[Change],
) -> Iterator[tuple[str, list[tuple[tuple[str, ...], list[Change]]]]]:
    """Yield each impact with its groups: the affected operations and their changes."""
    for impact in TITLES:
        matching = sorted((one for one in changes if one.impact == impact), key=lambda one: one.operations)
        if matching:
            groups = groupby(matching, lambda one: one.operations)
            yield impact, [(names, list(group)) for names, group in groups]


def format_headline(names: tuple[str, ...], ids: dict[str, str], mark: str = "") -> str:
    """Return the headline of a group of operations."""
    if not names:
        return "All operations"
    if len(names) == 1:
        return f"{mark}{names[0]}{mark} {ids.get(names[0], '')}".rstrip()
    first = ", ".join(ids.get(name) or name for name in names[:4])
    return f"{len(names)} operations: {first}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


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
