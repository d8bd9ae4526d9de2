"""Write the coverage of the contract for machines: JSON, JUnit XML and a badge as SVG."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from tests.contract.coverage.recording import Cell

if TYPE_CHECKING:
    from tests.contract.coverage.run import Coverage

COLORS = ((100.0, "#2e7d32"), (90.0, "#8d6e00"), (0.0, "#b3261e"))
"""The background of the badge from each percentage on. White text on each has a contrast of more than 4.5."""
CHARACTER_WIDTH, PADDING = 7, 6
BADGE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{label}: {value}">
  <title>{label}: {value}</title>
  <clipPath id="r"><rect width="{width}" height="20" rx="3"/></clipPath>
  <g clip-path="url(#r)">
    <rect width="{left}" height="20" fill="#444"/>
    <rect x="{left}" width="{right}" height="20" fill="{color}"/>
  </g>
  <g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
    <text x="{padding}" y="14">{label}</text>
    <text x="{start}" y="14">{value}</text>
  </g>
</svg>
"""


def write_reports(coverage: Coverage, folder: Path) -> list[Path]:
    """Write `coverage.json`, `junit.xml` and `badge.svg` to a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "coverage.json": json.dumps(build_json(coverage), indent=2) + "\n",
        "junit.xml": build_junit(coverage),
        "badge.svg": build_badge("contract coverage", coverage.percent),
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def build_json(coverage: Coverage) -> dict[str, object]:
    """Return the totals, and each declared response with whether a test produced it."""
    operations: dict[str, list[dict[str, object]]] = {}
    for cell in _sorted(coverage.declared):
        operations.setdefault(cell.operation_id, []).append(
            {
                "status": cell.status,
                "media_type": cell.media_type,
                "produced": cell not in coverage.missing,
            }
        )
    return {
        "declared": len(coverage.declared),
        "produced": len(coverage.declared) - len(coverage.missing),
        "percent": coverage.percent,
        "complete": coverage.is_complete,
        "operations": [{"operation_id": name, "responses": cells} for name, cells in operations.items()],
        "undeclared": [cell._asdict() for cell in _sorted(coverage.undeclared)],
    }


def build_junit(coverage: Coverage) -> str:
    """Return JUnit XML with one test case for each declared and each undeclared response."""
    failures = dict.fromkeys(coverage.missing, "no test produced this response")
    failures |= dict.fromkeys(coverage.undeclared, "the contract does not declare this response")
    cells = _sorted(coverage.declared | coverage.undeclared)
    counts = {"tests": str(len(cells)), "failures": str(len(failures)), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", {"name": "contract coverage", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "contract coverage", **counts})
    for cell in cells:
        name = f"{cell.status} {cell.media_type or '(no body)'}"
        case = ElementTree.SubElement(suite, "testcase", {"classname": cell.operation_id, "name": name})
        if message := failures.get(cell):
            ElementTree.SubElement(case, "failure", {"message": message})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def build_badge(label: str, percent: float) -> str:
    """Return a badge as SVG. The width of its text is estimated, as no font is loaded."""
    value = f"{percent:g} %"
    left, right = (CHARACTER_WIDTH * len(text) + 2 * PADDING for text in (label, value))
    color = next(color for minimum, color in COLORS if percent >= minimum)
    return BADGE.format(
        label=escape(label),
        value=value,
        color=color,
        left=left,
        right=right,
        width=left + right,
        padding=PADDING,
        start=left + PADDING,
    )


def _sorted(cells: Iterable[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda cell: (cell.operation_id, cell.status, cell.media_type or ""))
