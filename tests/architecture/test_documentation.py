"""Pages of the documentation are complete: reader groups, links, anchors, headings, marked code blocks."""

from __future__ import annotations

import re

import pytest

from tests.architecture.sources import ROOT, format_findings
from tools.site.documentation import DOCS, README, Page, list_index, list_pages, read_page

KINDS = {"tutorial", "how-to", "reference", "explanation"}
READERS = {"api-consumers", "ci-engineers", "spec-reviewers", "operators", "contributors"}
MAX_README_LINES = 150
PAGES = list_pages()
FOLDERS = "openapi|handlers|studio|db|clients|tools|tests|docs|deploy|\\.github|\\.ci"
PLACEHOLDERS = re.compile(r"[<>{}*]|x\.y\.z")
NOT_COMMITTED = {"clients/python/src/sartiq/_generated"}
"""Paths that a make target creates."""
TITLES = {
    "Authentication",
    "Pagination and filtering",
    "Errors",
    "Retries and idempotency",
    "Waiting for generations",
    "Webhooks",
    "Images and uploads",
    "Organizations and roles",
    "API keys",
    "Audit log",
    "Rate limits",
    "Exports",
    "Versioning and stability",
    "Examples and clients",
    "Mock server",
    "Conformance kit",
    "Reviewing a change of the contract",
    "Adding an operation",
    "Architecture",
    "Performance",
    "Testing",
    "Configuration",
    "PostgreSQL",
    "Workers",
    "Observability",
    "Backup and upgrade",
    "Compatibility with the public Sartiq documentation",
    "Tenancy",
    "Why the server is strict",
    "Security model",
}


def find_broken_links(page: Page) -> list[str]:
    """Return the relative links that lead to no file or no heading."""
    broken = []
    for link in page.links:
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.path.parent / target).resolve()
        if (target and not path.exists()) or (
            anchor and anchor not in (read_page(path) if target else page).anchors
        ):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Page) -> None:
    assert find_broken_links(page) == []


def test_a_broken_link_and_a_broken_anchor_are_found() -> None:
    page = Page(DOCS / "page.md", "# Title\n[a](missing.md) [b](#title) [c](#nowhere) [d](index.md#none)\n")
    assert find_broken_links(page) == ["missing.md", "#nowhere", "index.md#none"]


def find_missing_paths(page: Page) -> list[str]:
    """Return the paths in backticks, and the modules after `python -m`, that this project does not have."""
    paths = re.findall(rf"`((?:{FOLDERS})/[^`\s]*)`", page.text)
    missing = [
        path
        for path in paths
        if path not in NOT_COMMITTED and not PLACEHOLDERS.search(path) and not (ROOT / path).exists()
    ]
    for module in re.findall(r"python -m ((?:handlers|studio|db|tools|tests)\b[\w.]*\w)", page.text):
        path = ROOT / module.replace(".", "/")
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists():
            missing.append(module)
    return missing


def test_every_path_and_command_that_a_page_names_exists() -> None:
    pages = [*PAGES, read_page(ROOT / "CONTRIBUTING.md"), read_page(ROOT / "SECURITY.md")]
    findings = [f"{page.name}: {path}" for page in pages for path in find_missing_paths(page)]
    assert not findings, format_findings(findings)


def test_a_path_and_a_command_that_do_not_exist_are_found() -> None:
    text = (
        "# Title\n`studio/leases.py` `studio/queue/` `openapi/paths/<tag>.yaml` `handlers/nothing`\n"
        "`python -m studio.jobs` `python -m studio.nothing` `python -m handlers`\n"
    )
    assert find_missing_paths(Page(DOCS / "page.md", text)) == [
        "studio/leases.py",
        "handlers/nothing",
        "studio.nothing",
    ]


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_every_page_names_its_title_kind_and_readers(page: Page) -> None:
    matter = page.front_matter
    assert matter.keys() >= {"title", "kind", "readers"}
    assert matter["kind"] in KINDS
    assert isinstance(matter["readers"], list)
    assert set(matter["readers"]) <= READERS
    assert matter["readers"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shell_block_is_run_or_marked_with_a_reason(page: Page) -> None:
    assert [block for block in page.code_blocks if not block.language] == []
    # tests/e2e/test_documentation.py runs these two.
    runnable = [
        block for block in page.code_blocks if block.language in ("sh", "python") and not block.not_run
    ]
    assert all("make " not in block.code and "docker" not in block.code for block in runnable)


def test_every_subject_that_people_search_for_has_its_page() -> None:
    titles = {str(page.front_matter.get("title")) for page in PAGES}
    assert titles >= TITLES


def test_the_index_lists_every_page_once_below_its_kind() -> None:
    entries = list_index(read_page(DOCS / "index.md"))
    assert [entry.path for entry in entries if not entry.description] == []
    listed = sorted((entry.kind, entry.title, entry.path) for entry in entries)
    decisions = DOCS / "decisions"
    assert listed == sorted(
        (str(page.front_matter["kind"]), str(page.front_matter["title"]), page.path)
        for page in PAGES[1:]
        if page.path.name != "index.md" and (page.path.parent != decisions or page.path.name == "README.md")
    )


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_the_first_heading_is_the_title(page: Page) -> None:
    heading = re.search(r"^# (.+)$", page.text, re.MULTILINE)
    assert heading
    assert re.sub(r"`|^\d{4} ", "", heading[1]) == page.front_matter["title"]


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES
