"""Read the pages of the documentation: front matter, headings, links and code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class CodeBlock:
    """A fenced code block. `not_run` is the reason why no test runs it, if it is marked so."""

    language: str
    not_run: str | None
    code: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The path from the root of the project."""
        return str(self.path.relative_to(ROOT))

    @property
    def front_matter(self) -> dict[str, object]:
        """The YAML at the top; empty if there is none."""
        match = _FRONT_MATTER.match(self.text)
        return dict(yaml.safe_load(match[1])) if match else {}

    @property
    def code_blocks(self) -> list[CodeBlock]:
        """The fenced code blocks, in order. A block is marked as in "```sh not-run: needs a container"."""
        blocks = []
        for indent, info, code in _FENCE.findall(self.text):
            language, _, mark = info.partition(" not-run:")
            lines = [line.removeprefix(indent) for line in code.splitlines()]
            blocks.append(CodeBlock(language.strip(), mark.strip() or None, "\n".join(lines) + "\n"))
        return blocks

    @property
    def links(self) -> list[str]:
        """The targets of links and images outside of code."""
        return _LINK.findall(_FENCE.sub("", self.text))

    @property
    def anchors(self) -> set[str]:
        """The anchors of the headings, as GitHub derives them."""
        headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", self.text), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def read_page(path: Path) -> Page:
    """Return the page in a file."""
    return Page(path, path.read_text(encoding="utf-8"))


def list_pages() -> list[Page]:
    """Return the README and every page below docs/."""
    paths = [README, *sorted(DOCS.rglob("*.md"))]
    return [read_page(path) for path in paths]


@dataclass(frozen=True)
class IndexEntry:
    """A page as the index lists it. `group` is the heading below that of its kind, None without one."""

    kind: str
    group: str | None
    title: str
    path: Path
    description: str


KINDS = {
    "Tutorials": "tutorial",
    "How-to guides": "how-to",
    "Reference": "reference",
    "Explanation": "explanation",
}
"""The kind of the pages below each heading of the index."""

_ENTRY = re.compile(r"^- \[([^\]]+)\]\(([^)\s]+)\): (.*?)(?=\n- |\n\n|\Z)", re.MULTILINE | re.DOTALL)


def list_index(index: Page) -> list[IndexEntry]:
    """Return the entries of the index, in order."""
    entries = []
    for section in re.split(r"^## ", index.text, flags=re.MULTILINE)[1:]:
        kind, _, body = section.partition("\n")
        for number, part in enumerate(re.split(r"^### ", body, flags=re.MULTILINE)):
            group, _, lines = part.partition("\n") if number else ("", "", part)
            entries += [
                IndexEntry(
                    KINDS[kind], group or None, title, (index.path.parent / path).resolve(), text.strip()
                )
                for title, path, text in _ENTRY.findall(lines)
            ]
    return entries
