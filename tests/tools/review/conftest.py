"""Fixtures of the review tests: a copy of the repository to edit and commit, and the contract."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.conformance.sartiq_conformance.diff.open_enumerations import close_enumerations
from tools.review.tools import BUNDLE, ROOT, read_bundle

COPIED = (
    "openapi",
    "handlers",
    "studio",
    "db",
    "tests",
    "tools",
    "clients",
    "deploy",
    "docs",
    "pyproject.toml",
    "redocly.yaml",
    ".spectral.yaml",
)


class RepositoryCopy:
    """A copy of the repository with a git history of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns(
                    "__pycache__", "released", "node_modules", "generated", "dist"
                )
                shutil.copytree(ROOT / name, root / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, root / name)
        # They are about the last release, which the copy does not have.
        for name in ("CHANGELOG.md", "changes.atom", "changes.json", "allowed-breaks.yaml"):
            (root / "openapi" / name).unlink(missing_ok=True)
        (root / "node_modules").symlink_to(ROOT / "node_modules")
        (root / ".gitignore").write_text("node_modules\n__pycache__\n")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        outcome = subprocess.run(
            ["git", *identity, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        )
        return outcome.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}"
        (self.root / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    def read(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=self.root, capture_output=True, text=True
        )


@pytest.fixture
def repository(tmp_path: Path) -> RepositoryCopy:
    """Return a copy of the repository with one commit."""
    return RepositoryCopy(tmp_path)


@pytest.fixture(scope="session")
def contract() -> Callable[[], dict[str, Any]]:
    """Return a function that returns a copy of the committed bundle with the enumerations of the YAML."""
    return lambda: close_enumerations(read_bundle(BUNDLE))
