"""The Python examples of the guide and the package's README run as printed and are strictly typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.clients.python_package import PROJECT
from tools.servers.server import RunningServer
from tools.site.documentation import DOCS, CodeBlock, read_page

PAGES = (PROJECT / "README.md", DOCS / "guides" / "python-client.md")
EXAMPLES = {
    f"{page.name} {number}": block
    for page in PAGES
    for number, block in enumerate(read_page(page).code_blocks, 1)
    if block.language == "python" and not block.not_run
}


def test_the_readme_has_five_examples() -> None:
    assert len([name for name in EXAMPLES if name.startswith("README")]) == 5


@pytest.mark.slow("it generates images")
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_runs_as_printed(
    example: CodeBlock, demo_server: RunningServer, photo: Path, tmp_path: Path
) -> None:
    photo.rename(tmp_path / "mug.jpg")
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT / "src"),
        "SARTIQ_URL": demo_server.origin,
        "SARTIQ_EMAIL": "demo@example.com",
        "SARTIQ_PASSWORD": "sartiq-demo",
    }
    code = example.code.replace("http://localhost:8000", demo_server.origin)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow("mypy checks the whole client")
def test_the_examples_pass_strict_type_checks(tmp_path: Path) -> None:
    files = []
    for number, example in enumerate(EXAMPLES.values()):
        files.append(tmp_path / f"example_{number}.py")
        files[-1].write_text(example.code, encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    environment = {**os.environ, "MYPYPATH": str(PROJECT / "src")}
    done = subprocess.run([*mypy, *files], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
