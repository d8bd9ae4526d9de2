"""The files of the repository: allowed names and contents, lock files, and vendored assets."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.sources import format_findings

# In pieces, so that this file passes its own test.
FORBIDDEN = re.compile(
    "|".join(
        (
            r"(?<![\w.])/wor" + r"k/\w",
            r"(?<![\w.])/roo" + r"t/\w",
            r"(?<![\w.])/hom" + r"e/\w",
            r"(?<![\w.])/Users/\w",
            r"py" + r"pi\.org",
            r"pythonh" + r"osted\.org",
            r"npmjs" + r"\.(org|com)",
            r"deb" + r"ian\.org",
        )
    )
)
TOP_LEVEL = {
    "openapi",
    "handlers",
    "studio",
    "db",
    "tests",
    "tools",
    "pyproject.toml",
    "wsgi.py",
    "README.md",
    "docs",
    "clients",
    "deploy",
}
METADATA = {
    "Makefile",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "Dockerfile",
    "compose.yaml",
    "redocly.yaml",
    "mkdocs.yml",
}
LOCK_FILES = {
    "requirements.txt",
    "requirements-local.txt",
    "requirements-c2pa.txt",
    "requirements-dev.txt",
    "requirements-bench.txt",
    "requirements-generators.txt",
    "requirements-docs.txt",
    "requirements-audit.txt",
    "package.json",
    "package-lock.json",
}
# The folders with a package.json, a lock file and the settings of npm.
NODE_PROJECTS = [".", "tests/generators", "clients/typescript", "tools/bench/peers/fastify"]
# Copied from the released package: a test compares each file with the locked version.
SWAGGER_UI = Path("handlers/pages/swagger-ui")


def test_the_top_level_has_only_the_documented_names(tracked_files: list[Path], root: Path) -> None:
    names = {path.relative_to(root).parts[0] for path in tracked_files}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL | METADATA | LOCK_FILES


def test_no_file_names_a_machine_or_a_registry(tracked_files: list[Path], root: Path) -> None:
    found = []
    for path in tracked_files:
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            if FORBIDDEN.search(line):
                found.append(f"{path.relative_to(root)}:{number} {line.strip()[:120]}")
    assert not found, format_findings(found)


def test_text_files_end_with_one_newline(tracked_files: list[Path], root: Path) -> None:
    found = [
        str(path.relative_to(root))
        for path in tracked_files
        if (content := path.read_bytes())
        and b"\0" not in content
        and path.parent != root / SWAGGER_UI
        and (not content.endswith(b"\n") or content.endswith(b"\n\n"))
    ]
    assert not found, format_findings(found)


@pytest.mark.parametrize("name", sorted(name for name in LOCK_FILES if name.endswith(".txt")))
def test_a_lock_file_pins_by_hash_and_names_no_registry(root: Path, name: str) -> None:
    lines = (root / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "://" in line or line.startswith("-")] == []
    packages = [line for line in lines if line and line[0] not in "# "]
    assert [line for line in packages if not re.match(r"[a-z0-9-]+==\S+ (; .* )?\\$", line)] == []
    assert len([line for line in lines if "--hash=sha256:" in line]) >= len(packages)


def test_the_lock_files_have_the_versions_of_pyproject(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))

    def pins(lines: list[str]) -> set[str]:
        return {re.sub(r"\[.*?\]", "", line.split(" ")[0]).lower() for line in lines if "==" in line}

    runtime = pins((root / "requirements.txt").read_text(encoding="utf-8").splitlines())
    development = pins((root / "requirements-dev.txt").read_text(encoding="utf-8").splitlines())
    dependencies = project["project"]["dependencies"]
    assert pins(dependencies) <= runtime, "Run `make lock`."
    assert runtime | pins(project["dependency-groups"]["dev"]) <= development, "Run `make lock`."
    signing = project["project"]["optional-dependencies"]["c2pa"]
    signer = pins((root / "requirements-c2pa.txt").read_text(encoding="utf-8").splitlines())
    assert runtime | pins(signing) <= signer <= development, "Run `make lock`."
    pinned = [*dependencies, *signing, *project["dependency-groups"]["dev"]]
    for group in ("bench", "generators", "docs"):
        packages = project["dependency-groups"][group]
        locked = pins((root / f"requirements-{group}.txt").read_text(encoding="utf-8").splitlines())
        assert pins(packages) <= locked, "Run `make lock`."
        pinned += packages
    assert [line for line in pinned if "==" not in line] == []


@pytest.mark.parametrize("folder", NODE_PROJECTS)
def test_the_node_lock_file_has_no_download_urls(root: Path, folder: str) -> None:
    packages = json.loads((root / folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for package in packages.values():
        package.pop("funding", None)  # URLs for donations
        package.pop("license", None)  # old packages have a list with URLs
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert "://" not in json.dumps(packages)


@pytest.mark.parametrize("folder", NODE_PROJECTS)
def test_the_node_lock_file_pins_every_package_by_hash(root: Path, folder: str) -> None:
    packages = json.loads((root / folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    installed = {name: package for name, package in packages.items() if name}
    assert installed
    assert [
        name for name, package in installed.items() if not package.get("integrity", "").startswith("sha512-")
    ] == []
    assert [
        name for name, package in installed.items() if not re.match(r"\d+\.\d+", package["version"])
    ] == []


def test_all_node_projects_have_the_same_settings_of_npm(root: Path) -> None:
    assert len({(root / folder / ".npmrc").read_text(encoding="utf-8") for folder in NODE_PROJECTS}) == 1


def test_the_vendored_swagger_ui_is_the_locked_package(root: Path) -> None:
    released = root / "node_modules" / "swagger-ui-dist"
    package = json.loads((released / "package.json").read_text(encoding="utf-8"))
    package_json = json.loads((root / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    assert package["version"] == package_json["swagger-ui-dist"]
    vendored = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / SWAGGER_UI).iterdir()
    }
    originals = {name: hashlib.sha256((released / name).read_bytes()).hexdigest() for name in vendored}
    assert vendored == originals, "Copy these files of node_modules/swagger-ui-dist."
    assert {"LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"} <= set(vendored)


def test_make_help_explains_every_target(root: Path) -> None:
    lines = (root / "Makefile").read_text(encoding="utf-8").splitlines()
    phony = {line.split(":")[1].strip() for line in lines if line.startswith(".PHONY:")} - {"help"}
    documented = {line.split(":")[0] for line in lines if re.match(r"[a-z-]+:.*## \S", line)}
    assert phony == documented


def test_the_scripts_of_continuous_integration_are_executable(root: Path) -> None:
    assert os.access(root / ".ci" / "run", os.X_OK)
