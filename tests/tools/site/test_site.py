"""The site is built from `docs/`: lists, code blocks, links and the navigation are what the pages say."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.support.requirements import skip_or_fail
from tools.site.documentation import DOCS, KINDS, ROOT, Page
from tools.site.endpoints import load_contract
from tools.site.markdown import render_llms_txt
from tools.site.output import move_scripts_to_files
from tools.site.run import GENERATOR, build_site
from tools.site.source import Source, build_navigation, indent_lists

ROOT_URL = "http://localhost:8000/guides/"


class LinkParser(HTMLParser):
    """Collects the anchors and the targets of a page, and the elements that the policy forbids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: set[str] = set()
        self.forbidden: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        values = dict(attrs)
        self.anchors |= {str(values[name]) for name in ("id", "name") if values.get(name)}
        self.targets |= {str(values[name]) for name in ("href", "src") if values.get(name)}
        is_inline = tag == "script" and "src" not in values and values.get("type") != "application/json"
        if tag == "style" or "style" in values or is_inline or any(name.startswith("on") for name in values):
            self.forbidden.append(f"{tag} {attrs}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site."""
    if not GENERATOR.exists():
        skip_or_fail("the generator of the site (make .venv/docs/.stamp)")
    folder = tmp_path_factory.mktemp("built") / "site"
    build_site(folder)
    return folder


def convert(text: str) -> str:
    return "\n".join(indent_lists(text.splitlines()))


def test_contents_of_list_items_are_indented_by_four_spaces() -> None:
    assert convert(
        "1. a\n   b\n\n   ```sh not-run: slow\n   - x\n     y\n   ```\n2. c\n   - d\n     e\nf"
    ) == ("1. a\n    b\n\n    ```sh\n    - x\n      y\n    ```\n2. c\n    - d\n        e\nf")


def test_a_list_and_a_table_after_a_paragraph_begin_a_block() -> None:
    assert convert("a\n- b\n- c") == "a\n\n- b\n- c"
    assert convert("a\n| b |\n|---|") == "a\n\n| b |\n|---|"
    assert convert("```text\na\n- b\n```") == "```text\na\n- b\n```"


def test_a_link_out_of_the_documentation_leads_to_a_copy(tmp_path: Path) -> None:
    source = Source(tmp_path)
    page = Page(
        DOCS / "guides" / "x.md", "[a](../../SECURITY.md#b) `[c](d.md)` [e](errors.md) [f](https://g.h/)\n"
    )
    assert source._rewrite_links(page) == (
        "[a](project/SECURITY.md#b) `[c](d.md)` [e](errors.md) [f](https://g.h/)\n"
    )


def test_the_navigation_has_the_four_kinds() -> None:
    names = [next(iter(section)) for section in build_navigation([])]
    assert names == ["Home", "Tutorials", "How-to guides", "Reference", "Explanation", "Project"]


def test_the_list_for_language_models_names_each_page() -> None:
    text = render_llms_txt(load_contract())
    assert text.startswith("# Sartiq Backend API\n\n> The HTTP API of an AI product-photography studio.\n\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [*KINDS, "Endpoints", "Contract"]
    assert "- [Webhooks](/guides/webhooks.md): get messages instead of asking.\n" in text
    assert "- [shots](/guides/reference/operations/shots.md): " in text


def test_equal_scripts_of_pages_become_one_file(tmp_path: Path) -> None:
    (tmp_path / "assets" / "javascripts").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    for folder in (tmp_path, tmp_path / "a"):
        (folder / "index.html").write_text("<head></head><script>f()</script>")
    move_scripts_to_files(tmp_path)
    (script,) = (tmp_path / "assets" / "javascripts").iterdir()
    assert script.read_text() == "f()\n"
    assert f'src="../assets/javascripts/{script.name}"' in (tmp_path / "a" / "index.html").read_text()
    assert 'src="../assets/site.js"' in (tmp_path / "a" / "index.html").read_text()


@pytest.mark.slow("it builds the site and reads all of it")
def test_links_and_anchors_of_the_built_site_exist_and_no_page_breaks_the_policy(site: Path) -> None:
    pages = {
        urljoin(ROOT_URL, file.relative_to(site).as_posix()).removesuffix("index.html"): LinkParser(
            file.read_text(encoding="utf-8")
        )
        for file in site.rglob("*.html")
    }
    files = {
        urljoin(ROOT_URL, file.relative_to(site).as_posix()) for file in site.rglob("*") if file.is_file()
    }
    assert len(pages) > 60
    broken = []
    for url, page in pages.items():
        assert page.forbidden == [], url
        for target in page.targets:
            full = urljoin(url, target)
            if not full.startswith(ROOT_URL):
                continue
            path, anchor = full.partition("#")[0], unquote(urlsplit(full).fragment)
            found = path in pages or path in files
            if not found or (anchor and path in pages and anchor not in pages[path].anchors):
                broken.append(f"{url}: {target}")
    assert broken == []
    listed = re.findall(r"\]\(/guides/([^)]+)\)", (site / "llms.txt").read_text(encoding="utf-8"))
    assert [path for path in listed if not (site / path).is_file()] == []
    assert (site / "webhooks.md").read_text(encoding="utf-8").startswith("---\ntitle: Webhooks\n")


@pytest.mark.slow("it builds the site and reads all of it")
def test_no_mark_of_markdown_is_left_in_a_page(site: Path) -> None:
    left = []
    for file in site.rglob("*.html"):
        text = re.sub(
            r"<(pre|code)\b.*?</\1>|<script.*?</script>", "", file.read_text(encoding="utf-8"), flags=re.S
        )
        left += [
            f"{file.relative_to(site)}: {found}"
            for found in re.findall(r"```.*|\n *- \w.*|\]\(.*|<p>\|.*", text)
        ]
    assert left == []


def list_build_context(root: Path) -> list[Path]:
    """Return the files and folders that `.dockerignore` leaves in the build context of the image."""
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [root / line.removeprefix("!") for line in lines if line.startswith("!")]


@pytest.mark.slow("it builds the site a second time")
def test_the_image_can_build_the_site_from_its_context_and_its_packages(site: Path, tmp_path: Path) -> None:
    python = ROOT / ".venv" / "server" / "bin" / "python"
    if not python.exists():
        skip_or_fail("the environment of the server (make .venv/server/.stamp)")
    for path in list_build_context(ROOT):
        target = tmp_path / "context" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        copy(path, target)
    command = [python, "-m", "tools.site.run", "--generator", GENERATOR, "--output", tmp_path / "site"]
    subprocess.run(command, cwd=tmp_path / "context", check=True, capture_output=True)
    names = {file.relative_to(tmp_path / "site") for file in (tmp_path / "site").rglob("*.html")}
    assert names == {file.relative_to(site) for file in site.rglob("*.html")}
