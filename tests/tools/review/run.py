"""`make review`: check the contract and list its changes, as text and as Markdown for pull requests."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.tools.review.report import render_markdown, render_text
from tests.tools.review.review import review_contract
from tests.tools.review.tools import ToolFailed


def main() -> int:
    """Print the review and return 0 if the contract passes."""
    parser = argparse.ArgumentParser(prog="make review", description=__doc__)
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="also write the review to this file as Markdown"
    )
    markdown = parser.parse_args().markdown
    start = time.monotonic()
    try:
        review = review_contract()
    except ToolFailed as error:
        print(f"{error}\nFAILED: the contract cannot be bundled.")
        if markdown:
            markdown.write_text(f"# Review of the contract\n\n```text\n{error}\n```\n", encoding="utf-8")
        return 1
    print(render_text(review, time.monotonic() - start))
    if markdown:
        markdown.write_text(render_markdown(review), encoding="utf-8")
        print(f"Written to {markdown}")
    return 1 if review.failures else 0


if __name__ == "__main__":
    sys.exit(main())
