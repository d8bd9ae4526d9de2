"""`sartiq-conformance diff OLD NEW`: what changed between two OpenAPI documents, and what breaks clients."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sartiq_conformance.diff.accepted import (
    AcceptedChange,
    find_reasons,
    find_stale_entries,
    format_entries,
    load_accepted_changes,
)
from sartiq_conformance.diff.change import IMPACTS, Change
from sartiq_conformance.diff.changes import list_changes
from sartiq_conformance.diff.documents import DocumentError, Node, normalize
from sartiq_conformance.diff.reading import load_document
from sartiq_conformance.diff.report import Comparison, render_changes_markdown, render_changes_text
from sartiq_conformance.options import find_write_problem, parse_file

DESCRIPTION = """\
Compare two OpenAPI documents (3.0 or 3.1, JSON or YAML, each in one file), and say what changed for clients.
"""
EXIT_STATUS = """\
exit status:
  0  no change breaks clients, or --ignore accepts those that do
  1  a change breaks clients; with --fail-on any: something changed
  2  a document or the file of --ignore cannot be read, or an option is wrong
"""


def main(arguments: list[str], print_line: Callable[[str], None]) -> int:
    """Compare the documents, print and write the reports, and return the exit status."""
    options = parse_arguments(arguments)
    try:
        base, revision = _load(options.old), _load(options.new)
        accepted = _name_file(options.ignore, load_accepted_changes) if options.ignore else []
    except DocumentError as error:
        sys.stderr.write(f"sartiq-conformance diff: {error}\n")
        return 2
    comparison = Comparison("", f"from {_describe(options.old, base)} to {_describe(options.new, revision)}")
    comparison.name_operations(normalize(base), normalize(revision))
    comparison.changes = list_changes(base, revision)
    today = datetime.now(UTC).date()
    valid = [one for one in accepted if one.until >= today]
    comparison.reasons = find_reasons(comparison.changes, valid, comparison.ids)
    stale = _list_stale(comparison, accepted, today, options.ignore)
    failing = [one for one in comparison.changes if one not in comparison.reasons]
    if options.fail_on == "breaking":
        failing = [one for one in failing if one.impact == "breaking"]
    status = 1 if failing else 0
    for line in [*render_changes_text(comparison, "see --markdown FILE"), *stale, comparison.summary()]:
        print_line(line)
    if breaking := [one for one in failing if one.impact == "breaking"]:
        print_line("To accept the breaking changes, write the reason and add this to the file of --ignore:")
        for line in format_entries(breaking, comparison.ids, today):
            print_line(f"  {line}")
    if options.markdown:
        options.markdown.write_text(render_markdown(comparison, stale), encoding="utf-8")
    if options.json:
        report = build_json(comparison, base, revision, stale, status)
        options.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return status


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line, and check that the reports can be written."""
    parser = argparse.ArgumentParser(
        prog="sartiq-conformance diff",
        description=DESCRIPTION,
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("old", metavar="OLD", type=parse_file, help="the document that clients use")
    add("new", metavar="NEW", type=parse_file, help="the document that comes after it")
    add("--markdown", metavar="FILE", type=Path, help="write a Markdown report to this file")
    add("--json", metavar="FILE", type=Path, help="write a JSON report to this file")
    ignore_help = "YAML file of accepted changes: a list of `change`, `reason` and `until` (a day)"
    add("--ignore", metavar="FILE", type=parse_file, help=ignore_help)
    fail_help = "which changes make the exit status 1; default: breaking"
    add("--fail-on", choices=("breaking", "any"), default="breaking", help=fail_help)
    options = parser.parse_args(arguments)
    for report in (options.markdown, options.json):
        if report and (problem := find_write_problem(report)):
            parser.error(f"{report} cannot be written: {problem}")
    return options


def _load(path: Path) -> Node:
    return _name_file(path, load_document)


def _name_file(path: Path, load: Callable[[Path], Any]) -> Any:
    """Return what a function reads from a file. Its errors name the file, and the line if it is known."""
    try:
        return load(path)
    except DocumentError as error:
        place = f"{path}:{error.line}" if error.line else f"{path}"
        raise DocumentError(f"{place} {error}") from error


def _describe(path: Path, document: Node) -> str:
    info = document.get("info")
    version = info.get("version") if isinstance(info, dict) else None
    return f"{path} ({version})" if version else f"{path}"


def _list_stale(
    comparison: Comparison, accepted: list[AcceptedChange], today: date, file: Path | None
) -> list[str]:
    changes = comparison.changes or []
    return list(find_stale_entries(changes, accepted, today, comparison.ids, f"{file}"))


def render_markdown(comparison: Comparison, stale: list[str]) -> str:
    """Return the report for people."""
    lines = ["# Changes for clients", "", f"{comparison.summary()}.", ""]
    lines += [*(f"- {one}" for one in stale), ""] if stale else []
    return "\n".join([*lines, *render_changes_markdown(comparison)]).rstrip() + "\n"


def build_json(
    comparison: Comparison, base: Node, revision: Node, stale: list[str], status: int
) -> dict[str, Any]:
    """Return the report for programs. `format` increases when a member is removed or changes its meaning."""
    changes = comparison.changes or []
    versions = [(one.get("info") or {}).get("version") for one in (base, revision)]
    return {
        "format": 1,
        "status": status,
        "old": {"version": versions[0]},
        "new": {"version": versions[1]},
        "counts": {impact: sum(one.impact == impact for one in changes) for impact in IMPACTS},
        "stale_entries": stale,
        "changes": [_build_entry(one, comparison) for one in changes],
    }


def _build_entry(change: Change, comparison: Comparison) -> dict[str, Any]:
    return {
        "impact": change.impact,
        "text": change.text,
        "operations": [comparison.ids.get(name, name) for name in change.operations],
        "pointers": [change.pointer, *change.more],
        "example": change.example or None,
        "accepted": comparison.reasons.get(change),
    }
