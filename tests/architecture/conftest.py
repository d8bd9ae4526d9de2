"""Fixtures of the architecture tests: tracked files, modules, and the contract that the server loads."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.sources import PACKAGES, ROOT, Module


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root folder of the project."""
    return ROOT


@pytest.fixture(scope="session")
def tracked_files() -> list[Path]:
    """Return the files that git tracks or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture(scope="session")
def modules(tracked_files: list[Path]) -> list[Module]:
    """Return every Python module of `db`, `studio` and `handlers`, without migrations."""
    return [
        Module(path)
        for path in tracked_files
        if path.suffix == ".py"
        and path.relative_to(ROOT).parts[0] in PACKAGES
        and "versions" not in path.relative_to(ROOT).parts
    ]


@pytest.fixture(scope="session")
def all_modules(tracked_files: list[Path]) -> list[Module]:
    """Return every Python module, including tests."""
    return [Module(path) for path in tracked_files if path.suffix == ".py"]


@pytest.fixture(scope="session")
def contract(root: Path) -> dict[str, Any]:
    """Return the committed bundle, or the one that `make review` built from the sources."""
    path = Path(os.environ.get("REVIEWED_BUNDLE", root / "openapi" / "openapi.json"))
    bundle: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return bundle
