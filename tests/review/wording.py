"""A review as a text for the terminal, and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from tests.review.changes import Change
from tests.review.checks import Finding
from tests.review.reviewing import Comparison, Review

TITLES = {
    "breaking": "Breaking",
    "deprecated": "Deprecated",
    "added": "Added",
    "changed": "Changed, which no client minds",
}
SHOWN = 30


def as_text(review: Review, seconds: float) -> str:
    """Return what a reviewer reads in the terminal: short when all is well."""
    lines = [f"{name:<10}{state}" for name, state in facts(review)]
    for title, findings in review.tables():
        if findings:
            lines += ["", title, *(f"  {one.text}\n      {one.place}".rstrip() for one in findings[:SHOWN])]
            lines += [f"  ... and {len(findings) - SHOWN} more"] * (len(findings) > SHOWN)
    for comparison in review.told():
        lines += ["", f"What it means for clients, {comparison.since}:", *_changes_as_text(comparison)]
    failures = [f"FAILED: {one}" for one in review.failures]
    return "\n".join([*lines, "", *failures, f"{verdict(review)} ({seconds:.1f} s)"])


def _changes_as_text(comparison: Comparison) -> Iterator[str]:
    for impact, groups in by_impact(comparison.changes):
        yield f"  {TITLES[impact]}"
        for names, changes in groups:
            yield f"    {headline(names, comparison.ids)}"
            for change in changes:
                yield f"      {change.text}"
                yield f"          {comparison.places.get(change, '')}"
    if wording := [one for one in comparison.changes if one.impact == "wording"]:
        yield f"  Descriptions and examples changed: {len(wording)}"


def as_markdown(review: Review) -> str:
    """Return the review for a pull request."""
    lines = ["# Review of the contract", "", f"**{verdict(review)}**", ""]
    lines += [*(f"- {one}" for one in review.failures), ""] * bool(review.failures)
    lines += ["| | |", "|---|---|", *(f"| {name} | {state} |" for name, state in facts(review)), ""]
    for comparison in review.told():
        lines += [
            f"## What it means for clients, {comparison.since}",
            "",
            *changes_as_markdown(comparison),
        ]
    for title, findings in review.tables():
        if findings:
            lines += [f"## {title}", "", *(f"- {one.text}{_at(one.place)}" for one in findings), ""]
    return "\n".join(lines).rstrip() + "\n"


def changes_as_markdown(comparison: Comparison) -> Iterator[str]:
    """Give the lines of a comparison, a heading for each kind of change; places where they are known."""
    for impact, groups in by_impact(comparison.changes):
        yield from (f"### {TITLES[impact]}", "")
        for names, changes in groups:
            yield f"- {headline(names, comparison.ids, mark='`')}"
            for change in changes:
                yield f"  - {change.text}{_at(comparison.places.get(change, ''))}"
        yield ""
    if wording := [one for one in comparison.changes if one.impact == "wording"]:
        yield from (f"Descriptions and examples changed: {len(wording)}.", "")


def _at(place: str) -> str:
    return f" ({place})" if place else ""


def by_impact(changes: list[Change]) -> Iterator[tuple[str, list[tuple[tuple[str, ...], list[Change]]]]]:
    """Give each kind of change with its groups: the operations concerned, and what changes for them."""
    for impact in TITLES:
        some = sorted((one for one in changes if one.impact == impact), key=lambda one: one.operations)
        if some:
            yield impact, [(names, list(group)) for names, group in groupby(some, lambda one: one.operations)]


def headline(names: tuple[str, ...], ids: dict[str, str], mark: str = "") -> str:
    """Return how a group of operations is called."""
    if not names:
        return "All operations"
    if len(names) == 1:
        return f"{mark}{names[0]}{mark} {ids.get(names[0], '')}".rstrip()
    first = ", ".join(ids.get(name) or name for name in names[:4])
    return f"{len(names)} operations: {first}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def facts(review: Review) -> Iterator[tuple[str, str]]:
    """Give a line for each thing that was looked at."""
    stale = (
        ", and openapi.json is STALE: run `make openapi`"
        if review.is_stale
        else ", and openapi.json is fresh"
    )
    yield "Contract", f"{review.operations_count} operations, version {review.version}{stale}"
    for name, findings in review.findings.items():
        yield name, _count(findings)
    yield "Handlers", _count(review.without_handler, "every operation has one that fits")
    yield "Examples", _count(review.without_example, "every body and answer has one")
    for comparison in review.comparisons:
        yield comparison.name, comparison.summary()


def _count(findings: list[Finding], fine: str = "clean") -> str:
    return fine if not findings else f"{len(findings)} found, see below"


def verdict(review: Review) -> str:
    """Return the last word."""
    return "Not yet." if review.failures else "Fine."
