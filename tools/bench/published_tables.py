"""Write the tables of single benchmarks into the page about performance, between two comments."""

from __future__ import annotations

from collections.abc import Sequence

from tools.servers.server import REPORTS, ROOT

PERFORMANCE_PAGE = ROOT / "docs" / "performance.md"


def replace_table(page: str, name: str, lines: Sequence[str]) -> str:
    """Return a page with another table between the comments that name its command, such as `bench-lists`.

    Raises:
        ValueError: The page lacks one of the comments.
    """
    begin, end = f"<!-- written by make {name} -->\n", f"\n<!-- end of {name} -->"
    head, begun, rest = page.partition(begin)
    _, ended, tail = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"the page has no comments around the table of {name}")
    return head + begin + "\n".join(lines).strip() + "\n" + end + tail


def publish_table(name: str, lines: Sequence[str], *, is_steady: bool) -> str:
    """Write a table into `.reports`, and into the page if the machine was steady; return where it is."""
    REPORTS.mkdir(exist_ok=True)
    report = REPORTS / f"{name}.md"
    report.write_text("\n".join(lines), encoding="utf-8")
    if not is_steady:
        return f"the machine was not steady: the table is in {report.relative_to(ROOT)} only"
    page = PERFORMANCE_PAGE.read_text(encoding="utf-8")
    PERFORMANCE_PAGE.write_text(replace_table(page, name, lines), encoding="utf-8")
    return f"the table is in {PERFORMANCE_PAGE.relative_to(ROOT)}"
