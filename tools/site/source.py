"""Write the sources of the site: the pages of `docs/` as the generator reads them, and the navigation.

The pages are written for GitHub. The generator reads another Markdown: contents of list items are indented by
four spaces, and the first line of a code block has only the language.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.site.documentation import DOCS, KINDS, ROOT, Page, list_index, read_page

PROJECT = "project"
"""The folder of the site for files outside of `docs/` that its pages link to."""

READERS = {
    "api-consumers": "API consumers",
    "ci-engineers": "CI engineers",
    "spec-reviewers": "spec reviewers",
    "operators": "operators",
    "contributors": "contributors",
}
KIND_NAMES = {
    "tutorial": "Tutorial",
    "how-to": "How-to guide",
    "reference": "Reference",
    "explanation": "Explanation",
}
PROJECT_PAGES = (
    "CHANGELOG.md",
    "openapi/permissions.md",
    "openapi/CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
)

_FENCE = re.compile(r"^( *)(```+)(\w*)")
_MARKER = re.compile(r"(?:[-*+]|\d+\.) +")
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
_CODE_SPAN = re.compile(r"(`+).*?\1", re.DOTALL)


@dataclass
class Source:
    """The folder that the generator reads; `extra_pages` are generated, by path and with their text."""

    folder: Path
    extra_pages: dict[str, str] = field(default_factory=dict)
    _pending: list[Path] = field(default_factory=list)

    def write(self) -> None:
        """Write all pages, and the files that they link to."""
        self._pending = [*sorted(DOCS.rglob("*")), *(ROOT / name for name in PROJECT_PAGES)]
        written: set[Path] = set()
        while self._pending:
            file = self._pending.pop()
            if file in written or file.is_dir():
                continue
            written.add(file)
            target = self.folder / site_path(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".md":
                target.write_text(self._convert(read_page(file)), encoding="utf-8")
            else:
                shutil.copyfile(file, target)
        for name, text in self.extra_pages.items():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("\n".join(indent_lists(text.splitlines())) + "\n", encoding="utf-8")

    def _convert(self, page: Page) -> str:
        text = "\n".join(indent_lists(self._rewrite_links(page).splitlines())) + "\n"
        kind, readers = page.front_matter.get("kind"), page.front_matter.get("readers")
        if not isinstance(readers, list) or page.path.name == "index.md":
            return text
        names = ", ".join(READERS[name] for name in readers)
        line = f"{KIND_NAMES[str(kind)]} for {names}\n{{ .readers }}"
        return re.sub(r"^(# .+)$", rf"\1\n\n{line}", text, count=1, flags=re.MULTILINE)

    def _rewrite_links(self, page: Page) -> str:
        here = (self.folder / site_path(page.path)).parent

        def rewrite(match: re.Match[str]) -> str:
            link = match[2]
            path, mark, anchor = link.partition("#")
            if not path or "://" in link or link.startswith("mailto:"):
                return match[0]
            file = (page.path.parent / path).resolve()
            if DOCS not in file.parents:
                self._pending.append(file)
            new = os.path.relpath(self.folder / site_path(file), here)
            return f"{match[1]}{new}{mark}{anchor}{match[3]}"

        return "".join(
            part if is_code else _LINK.sub(rewrite, part) for is_code, part in split_code(page.text)
        )


def split_code(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the parts of a text, in order, and whether each is a code block or a code span."""
    blocks = re.compile(r"^( *)(```+)[^\n`]*\n.*?^\1\2`*$", re.MULTILINE | re.DOTALL)
    position = 0
    for block in blocks.finditer(text):
        yield from _split_spans(text[position : block.start()])
        yield True, block[0]
        position = block.end()
    yield from _split_spans(text[position:])


def _split_spans(text: str) -> Iterator[tuple[bool, str]]:
    # A code span can be the text of a link, so only spans with a bracket inside are kept apart.
    position = 0
    for span in _CODE_SPAN.finditer(text):
        if "](" in span[0]:
            yield False, text[position : span.start()]
            yield True, span[0]
            position = span.end()
    yield False, text[position:]


def site_path(file: Path) -> Path:
    """Return the path in the site of a file of the project."""
    if DOCS in file.parents:
        # The site is served at /guides/: its pages are there, not at /guides/guides/.
        path = file.relative_to(DOCS)
        return path.relative_to("guides") if path.parts[0] == "guides" else path
    return PROJECT / file.relative_to(ROOT)


def indent_lists(lines: list[str]) -> Iterator[str]:
    """Yield lines with the contents of list items indented by four spaces, and plain marks of code blocks.

    A blank line is added before a list or a table that follows a paragraph.
    """
    columns: list[int] = []  # where the contents of the open list items begin
    fence = ""
    previous = ""
    for line in lines:
        content = line.lstrip(" ")
        indent = len(line) - len(content)
        if not content:
            yield ""
            previous = ""
            continue
        if not fence:
            while columns and indent < columns[-1]:
                columns.pop()
        offset = columns[-1] if columns else 0
        new = "    " * len(columns) + " " * max(0, indent - offset) + content
        opened = _FENCE.match(line)
        marker = None if fence else _MARKER.match(content)
        if fence:
            fence = "" if content.rstrip("`") == "" and len(content) >= len(fence) else fence
        elif opened:
            fence = opened[2]
            new = new[: len(new) - len(content)] + opened[2] + opened[3]
        elif _starts_block(content, marker, previous):
            yield ""
        if marker:
            columns.append(indent + len(marker[0]))
        yield new
        previous = line


def _starts_block(content: str, marker: re.Match[str] | None, previous: str) -> bool:
    before = previous.strip()
    if not before:
        return False
    if content.startswith("|"):
        return not before.startswith("|")
    return bool(marker) and not _MARKER.match(before) and not previous.startswith(" ")


def build_navigation(extra: list[Any]) -> list[Any]:
    """Return the navigation: the index, with more reference pages, decisions and the project's own files."""
    sections: dict[str, list[Any]] = {heading: [] for heading in KINDS}
    headings = {kind: heading for heading, kind in KINDS.items()}
    for entry in list_index(read_page(DOCS / "index.md")):
        items = sections[headings[entry.kind]]
        if entry.group:
            if not items or entry.group not in items[-1]:
                items.append({entry.group: []})
            items = items[-1][entry.group]
        path = site_path(entry.path).as_posix()
        if path == "decisions/README.md":
            records = sorted(DOCS.glob("decisions/0*.md"))
            items.append({"Decisions": [path, *(f"decisions/{record.name}" for record in records)]})
        else:
            items.append({entry.title: path})
    sections["Reference"] += [*extra, {"Permissions": f"{PROJECT}/openapi/permissions.md"}]
    project = {
        "Changelog": "CHANGELOG.md",
        "Changes of the contract": "openapi/CHANGELOG.md",
        "Contributing": "CONTRIBUTING.md",
        "Security policy": "SECURITY.md",
    }
    return [
        {"Home": "index.md"},
        *({heading: items} for heading, items in sections.items()),
        {"Project": [{title: f"{PROJECT}/{path}"} for title, path in project.items()]},
    ]
