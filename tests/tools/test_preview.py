"""`make preview`: mistakes are named in one line, and the findings belong to the files as they are."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.preview import run
from tools.preview.run import Preview
from tools.review import tools
from tools.review.checks import Finding
from tools.review.tools import ROOT, SOURCE


@pytest.mark.parametrize("port", ["abc", "65536", "-1", "80.5", ""])
def test_a_port_that_is_no_port_is_named(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", port)
    monkeypatch.setattr(sys, "argv", ["preview"])
    with pytest.raises(SystemExit, match="2"):
        run.main()
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"make preview: error: argument --port: `{port}` is not a port: use a number up to 65535"
    )


@pytest.mark.slow("it starts a process")
def test_a_port_in_use_is_named_with_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = subprocess.run(
            [sys.executable, "-m", "tools.preview.run"],
            cwd=ROOT,
            env=os.environ | {"PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert outcome.returncode == 1
    assert outcome.stderr == (
        f"Port {port} cannot be used: Address already in use. Use another one: make preview PORT={port + 1}\n"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the sources of the contract."""
    return Path(shutil.copytree(SOURCE.parent, tmp_path / "openapi"))


@pytest.fixture
def linted(folder: Path) -> Iterator[Preview]:
    """Yield a preview of that folder that bundles nothing, for tests of the linter."""
    preview = Preview(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview.sources, "bundle", dict)
        preview.poll()
        yield preview


def test_a_permission_that_is_not_listed_is_named_on_the_permissions_page(folder: Path) -> None:
    brands = folder / "paths" / "brands.yaml"
    brands.write_text(
        brands.read_text(encoding="utf-8").replace("brands:write", "brands:wrte"), encoding="utf-8"
    )
    preview = Preview(folder)
    preview.poll()
    page = preview.content("/api/v1/docs/permissions")
    assert page == (b"`brands:wrte` is missing: see openapi/permissions.yaml.\n", "text/plain")


def test_findings_of_files_that_changed_meanwhile_are_not_shown(
    linted: Preview, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def lint(_: Path, _is_outdated: Callable[[], bool]) -> list[Finding]:
        runs.append(len(runs))
        if len(runs) == 1:
            (folder / "paths" / "brands.yaml").touch()
        return [Finding("", f"run {len(runs)}")]

    monkeypatch.setattr(run, "redocly_findings", lint)
    linted.lint()
    assert linted.findings == []
    linted.poll()
    linted.lint()
    assert linted.findings == [Finding("", "run 2")]
    linted.lint()
    assert len(runs) == 2


def test_a_save_ends_the_run_of_the_linter(
    tmp_path: Path, linted: Preview, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "node_modules" / tools.REDOCLY
    program.parent.mkdir(parents=True)
    # The run ends after 20 seconds without the change, so that the test cannot wait forever.
    program.write_text(
        "const fs = require('fs');"
        "fs.writeFileSync('started', '');"
        "setTimeout(() => { fs.writeFileSync('completed', ''); console.log('{\"problems\": []}') }, 20_000)"
    )
    monkeypatch.setattr(tools, "ROOT", tmp_path)

    def save() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.05)
        (folder / "paths" / "brands.yaml").touch()

    threading.Thread(target=save, daemon=True).start()
    # It waits for the output of the linter, so no process of the linter is left when it returns.
    linted.lint()
    assert not (tmp_path / "completed").exists()

    monkeypatch.undo()
    linted.poll()
    monkeypatch.setattr(run, "redocly_findings", lambda *_: [Finding("", "new")])
    linted.lint()
    assert linted.findings == [Finding("", "new")]


def test_the_linter_waits_for_a_file_that_an_editor_replaces(
    linted: Preview, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "redocly_findings", lambda *_: [Finding("", "found")])

    def read_times() -> dict[Path, int]:
        raise FileNotFoundError

    with monkeypatch.context() as patched:
        patched.setattr(linted.sources, "modification_times", read_times)
        linted.lint()
    assert linted.findings == []
    linted.lint()
    assert linted.findings == [Finding("", "found")]


def test_an_error_is_shown_until_the_next_bundle_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brands = folder / "paths" / "brands.yaml"
    text = brands.read_text(encoding="utf-8")
    brands.write_text(f"{text}\nbroken: [", encoding="utf-8")
    preview = Preview(folder)
    preview.poll()
    error = preview.error
    assert error
    brands.write_text(text, encoding="utf-8")
    build, errors = preview.sources.bundle, []

    def bundle() -> dict[str, Any]:
        errors.append(preview.error)
        return build()

    monkeypatch.setattr(preview.sources, "bundle", bundle)
    preview.poll()
    assert (errors, preview.error) == ([error], None)
