"""`make review`: check the contract and list its changes, as text and as Markdown for pull requests."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.review.api_usage import UsageUnreadable, load_usage
from tools.review.checks import Finding, Node
from tools.review.report import (
    format_annotation,
    list_alerts,
    list_stopped_alerts,
    render_comment,
    render_markdown,
    render_stopped,
    render_stopped_markdown,
    render_text,
)
from tools.review.review import ReviewStopped, describe_failure, has_commit, review_contract
from tools.review.sarif import render_sarif


def _file_to_write(text: str) -> Path:
    """Create the folder of a file now: a wrong path must not be found after a review of a minute."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"cannot create the folder {path.parent}: {error.strerror}"
        ) from error
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file")
    return path


def _commit(text: str) -> str:
    """Check that a branch exists: without it the comparison would be missing, and the review would pass."""
    if not has_commit(text):
        raise argparse.ArgumentTypeError(
            f"there is no branch, tag or commit `{text}` here: check the name, or run `git fetch`"
        )
    return text


def _usage(text: str) -> list[Node]:
    """Read the file now: a wrong one must not be found after the review."""
    try:
        return load_usage(Path(text))
    except UsageUnreadable as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="make review", description=__doc__)
    parser.add_argument(
        "--markdown",
        type=_file_to_write,
        metavar="FILE",
        help="also write the review to this file as Markdown",
    )
    parser.add_argument(
        "--comment",
        type=_file_to_write,
        metavar="FILE",
        help="also write the Markdown, shortened for a comment",
    )
    parser.add_argument(
        "--annotations", action="store_true", help="also print annotations for GitHub Actions"
    )
    parser.add_argument(
        "--sarif",
        type=_file_to_write,
        metavar="FILE",
        help="also write the findings as SARIF, for code scanning",
    )
    parser.add_argument(
        "--base",
        type=_commit,
        metavar="BRANCH",
        help="branch, tag or commit to compare with; by default origin/main or main",
    )
    parser.add_argument(
        "--usage",
        type=_usage,
        metavar="FILE",
        help="with the API usage of all organizations, say whom each break would hit",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Print the review and return 0 if the contract passes."""
    arguments = parse_arguments()
    start = time.monotonic()
    findings: list[Finding] = []
    try:
        review = review_contract(arguments.base, arguments.usage)
    except ReviewStopped as stopped:
        findings = stopped.findings
    except Exception as error:  # noqa: BLE001 - a traceback says nothing to the author of the contract
        findings = [describe_failure(error)]
    if findings:
        text, report = render_stopped(findings), render_stopped_markdown(findings)
        alerts, version = list(list_stopped_alerts(findings)), "0"
    else:
        text, report = render_text(review, time.monotonic() - start), render_markdown(review)
        alerts, version = list(list_alerts(review)), review.version
    print(text)
    if arguments.annotations and alerts:
        print("\n".join(map(format_annotation, alerts)))
    for file, content in (
        (arguments.markdown, report),
        (arguments.comment, render_comment(report)),
        (arguments.sarif, render_sarif(alerts, version)),
    ):
        if file:
            file.write_text(content, encoding="utf-8")
            print(f"Written to {file}")
    return 1 if findings or review.failures else 0


if __name__ == "__main__":
    sys.exit(main())
