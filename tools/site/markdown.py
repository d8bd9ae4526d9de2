"""Write the pages as Markdown beside their HTML, and `llms.txt`, which lists them for language models.

`/guides/webhooks.md` is the source of `/guides/webhooks/`. The format of the list is that of llmstxt.org.
"""

from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

from tools.site.documentation import DOCS, KINDS, IndexEntry, list_index, read_page
from tools.site.endpoints import OPERATIONS
from tools.site.schema_text import cell
from tools.site.source import site_path

PREFIX = "/guides/"


def copy_pages(source: Path, built: Path) -> None:
    """Copy the pages that the generator read to the built site, and link to them from their HTML."""
    for page in sorted(source.rglob("*.md")):
        name = page.relative_to(source)
        shutil.copyfile(page, built / name)
        folder = name.parent if name.name in ("index.md", "README.md") else name.with_suffix("")
        html = built / folder / "index.html"
        up = "../" * len(folder.parts)
        link = f'<link rel="alternate" type="text/markdown" href="{up}{name.as_posix()}">'
        html.write_text(
            html.read_text(encoding="utf-8").replace("</head>", link + "</head>", 1), encoding="utf-8"
        )


def render_llms_txt(contract: dict[str, Any]) -> str:
    """Return the list of all pages by kind, then the pages of the contract."""
    index = read_page(DOCS / "index.md")
    parts = ["# Sartiq Backend API", "> " + contract["info"]["description"].partition("\n")[0]]
    headings = {kind: heading for heading, kind in KINDS.items()}
    for kind, entries in groupby(list_index(index), key=lambda entry: entry.kind):
        parts.append(f"## {headings[kind]}\n\n" + "\n".join(map(_render_entry, entries)))
    folder = f"{PREFIX}{OPERATIONS}"
    tags = [
        f"- [{tag['name']}]({folder}/{tag['name']}.md): {cell(tag['description'])}"
        for tag in contract["tags"]
    ]
    parts.append("## Endpoints\n\n" + "\n".join(tags))
    parts.append(
        "## Contract\n\n- [OpenAPI 3.1](/api/v1/openapi.json): every operation, schema and example.\n"
        "- [OpenAPI 3.0](/api/v1/openapi-3.0.json): the same for tools that do not read 3.1."
    )
    return "\n\n".join(parts) + "\n"


def _render_entry(entry: IndexEntry) -> str:
    return f"- [{entry.title}]({PREFIX}{site_path(entry.path).as_posix()}): {entry.description}"
