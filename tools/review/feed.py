"""Write the releases of openapi/CHANGELOG.md as feeds: Atom (RFC 4287) and JSON Feed 1.1."""

from __future__ import annotations

import html
import json
import re
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TITLE = "Sartiq Backend API: changes of the contract"
ATOM = "http://www.w3.org/2005/Atom"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://sartiq.invalid/api/v1/changes")
"""Every release keeps its id when a feed is moved to another address."""


class Release(NamedTuple):
    """One section of the changelog. `day` has the form of ISO 8601, `text` is Markdown."""

    version: str
    day: str
    text: str

    @property
    def id(self) -> str:
        """The identifier of the release, for readers that have shown it already."""
        return uuid.uuid5(NAMESPACE, self.version).urn

    @property
    def title(self) -> str:
        """The version, and whether clients break."""
        return f"{self.version}{', with breaking changes' if '### Breaking' in self.text else ''}"

    @property
    def time(self) -> str:
        """The start of the day in UTC: only the day is known."""
        return f"{self.day}T00:00:00Z"

    @property
    def content(self) -> str:
        """The Markdown as HTML that keeps its lines."""
        return f'<pre style="white-space: pre-wrap">{html.escape(self.text, quote=False)}</pre>'


def parse_releases(changelog: str) -> Iterator[Release]:
    """Yield the releases of a changelog, the newest first."""
    sections = re.split(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d{2}-\d{2})$", changelog, flags=re.MULTILINE)[1:]
    for version, day, text in zip(sections[::3], sections[1::3], sections[2::3], strict=True):
        yield Release(version, day, text.strip())


def build_atom(releases: list[Release]) -> str:
    """Return the releases as an Atom feed."""
    ElementTree.register_namespace("", ATOM)
    feed = ElementTree.Element(f"{{{ATOM}}}feed")
    _add(feed, "title", TITLE)
    _add(feed, "id", NAMESPACE.urn)
    _add(feed, "updated", max(release.time for release in releases))
    _add(_add(feed, "author"), "name", "Sartiq")
    for release in releases:
        entry = _add(feed, "entry")
        _add(entry, "title", release.title)
        _add(entry, "id", release.id)
        _add(entry, "updated", release.time)
        _add(entry, "content", release.content).set("type", "html")
    ElementTree.indent(feed)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(feed, encoding="unicode") + "\n"


def build_json_feed(releases: list[Release]) -> str:
    """Return the releases as a JSON Feed."""
    feed = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": TITLE,
        "authors": [{"name": "Sartiq"}],
        "language": "en",
        "items": [
            {
                "id": release.id,
                "title": release.title,
                "content_html": release.content,
                "content_text": release.text,
                "date_published": release.time,
            }
            for release in releases
        ],
    }
    return json.dumps(feed, indent=2, ensure_ascii=False) + "\n"


def write_feeds(changelog: Path) -> None:
    """Write `changes.atom` and `changes.json` beside a changelog."""
    releases = list(parse_releases(changelog.read_text(encoding="utf-8")))
    (changelog.parent / "changes.atom").write_text(build_atom(releases), encoding="utf-8")
    (changelog.parent / "changes.json").write_text(build_json_feed(releases), encoding="utf-8")


def _add(parent: ElementTree.Element, name: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, f"{{{ATOM}}}{name}")
    child.text = text
    return child
