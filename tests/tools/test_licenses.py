"""Licenses of locked packages, and what changed between two bills of materials."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.distribution.bills import build_bill, compare_bills, main
from tools.distribution.licenses import (
    ENVIRONMENTS,
    NPM_LOCKS,
    ROOT,
    Package,
    Rules,
    find_site_packages,
    find_unused_exceptions,
    find_violations,
    is_accepted,
    read_installed,
    read_locked,
    read_npm_lock,
    read_rules,
)

RULES = Rules(
    frozenset({"MIT", "Apache-2.0"}),
    {"MIT License": "MIT", "GNU General Public License v3 (GPLv3)": "GPL-3.0-only"},
    {"loom": {"license": "LGPL-3.0-only", "reason": "a library that is not changed"}},
)


def write_package(folder: Path, name: str, version: str, *fields: str) -> None:
    """Install a package that consists of its metadata."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *fields]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_each_package_of_this_environment_and_of_the_npm_locks_has_an_accepted_license() -> None:
    folder = find_site_packages(Path(sys.prefix))
    assert folder is not None
    rules = read_rules()
    locked = list(read_locked(ROOT / "requirements-dev.txt", read_installed(folder, rules.names)))
    packages = [each for each in locked if isinstance(each, Package)]
    assert [each for each in locked if isinstance(each, str)] == []
    assert len(packages) > 100
    of_node = [package for lock in NPM_LOCKS for package in read_npm_lock(ROOT / lock)]
    assert len(of_node) > 300
    assert find_violations([*packages, *of_node], rules) == []
    # The same packages, if their licenses were not accepted.
    stricter = replace(rules, accepted=rules.accepted - {"Apache-2.0"})
    found = find_violations([*packages, *of_node], stricter)
    assert [line for line in found if line.startswith("connexion ")]
    assert [line for line in found if line.startswith("npm:swagger-ui-dist ")]


def test_every_lock_file_is_checked() -> None:
    # The other two are parts of requirements-dev.txt.
    locks = {path.name for path in ROOT.glob("requirements*.txt")}
    parts = {"requirements.txt", "requirements-local.txt", "requirements-c2pa.txt"}
    assert locks - parts == set(ENVIRONMENTS)

    def read_pins(name: str) -> set[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return {line.split(" ")[0] for line in lines if "==" in line}

    for part in parts:
        assert read_pins(part) <= read_pins("requirements-dev.txt"), part


def test_every_exception_has_a_reason() -> None:
    assert all(len(exception["reason"].split()) >= 2 for exception in read_rules().exceptions.values())


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("MIT AND Apache-2.0", True),
        ("MIT OR GPL-3.0-only AND Apache-2.0", True),
        ("(MIT OR GPL-3.0-only) AND Apache-2.0", True),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("MIT License", False),
        ("MIT)", False),
        ("(MIT", False),
        ("", False),
    ],
)
def test_an_expression_is_accepted_if_its_terms_can_be_met(expression: str, expected: bool) -> None:
    assert is_accepted(expression, RULES.accepted) is expected


def test_the_license_of_an_installed_package_is_that_of_its_metadata(tmp_path: Path) -> None:
    write_package(tmp_path, "Loom_Kit", "1.0", "License-Expression: MIT", "License: ignored")
    write_package(tmp_path, "spindle", "2.0", "Classifier: License :: OSI Approved :: MIT License")
    contained = "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"
    write_package(tmp_path, "bobbin", "3.0", "License: MIT", contained)
    write_package(tmp_path, "shuttle", "4.0", "Classifier: License :: OSI Approved", "License: MIT")
    write_package(tmp_path, "shears", "5.0", "Classifier: License :: Other/Proprietary License")
    write_package(tmp_path, "yarn", "6.0")
    packages = read_installed(tmp_path, RULES.names)
    assert {name: package.license for name, package in packages.items()} == {
        "loom-kit": "MIT", "spindle": "MIT", "bobbin": "GPL-3.0-only", "shuttle": "MIT",
        "shears": "Other/Proprietary License", "yarn": "",
    }  # fmt: skip
    assert [line.split(",")[0] for line in find_violations(packages.values(), RULES)] == [
        "bobbin 3.0 has the license GPL-3.0-only",
        "shears 5.0 has the license Other/Proprietary License",
        "yarn 6.0 has no license in its metadata",
    ]


def test_a_locked_package_that_is_not_installed_is_named_unless_it_is_for_another_platform(
    tmp_path: Path,
) -> None:
    write_package(tmp_path, "loom", "1.0", "License-Expression: MIT")
    lock = tmp_path / "requirements.txt"
    lock.write_text(
        "loom==1.0 \\\n    --hash=sha256:00\n"
        "spindle[fast]==2.0 \\\n    --hash=sha256:00\n"
        "pywin32==3 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
    )
    assert list(read_locked(lock, read_installed(tmp_path, {}))) == [
        Package("loom", "1.0", "MIT"),
        "requirements.txt: spindle 2.0 is not installed: `make licenses` installs it",
    ]


def test_an_exception_ends_with_the_license_that_it_was_made_for() -> None:
    assert find_violations([Package("loom", "1.0", "LGPL-3.0-only")], RULES) == []
    changed = [Package("loom", "2.0", "AGPL-3.0-only")]
    (violation,) = find_violations(changed, RULES)
    assert violation.startswith("loom 2.0 has the license AGPL-3.0-only, which is not accepted: use another")
    assert find_unused_exceptions(changed, RULES) == [
        "licenses.toml: no loom has the license LGPL-3.0-only: remove the exception"
    ]


def test_a_bill_shows_what_was_added_removed_and_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def component(purl: str, version: str, license_: str | None) -> dict[str, object]:
        licenses = {} if license_ is None else {"licenses": [{"expression": license_}]}
        return {"name": purl, "version": version, "purl": f"pkg:{purl}@{version}", **licenses}

    old = [component("pypi/loom", "1.0", "MIT"), component("pypi/spindle", "1.0", "MIT")]
    old += [component("pypi/yarn", "1.0", None), component("npm/yarn", "1.0", "MIT")]
    new = [component("pypi/loom", "1.1", "MIT"), component("pypi/spindle", "1.0", "AGPL-3.0-only")]
    new += [component("pypi/yarn", "1.0", None), component("pypi/bobbin", "2.0", "MIT OR Apache-2.0")]
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, components in zip(files, (old, new), strict=True):
        file.write_text(json.dumps({"bomFormat": "CycloneDX", "components": components}))
    monkeypatch.setattr("sys.argv", ["bill-changes", *map(str, files)])
    assert main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "removed  npm/yarn 1.0",
        "added    pypi/bobbin 2.0 (MIT OR Apache-2.0)",
        "changed  pypi/loom 1.0 -> 1.1",
        "changed  pypi/spindle 1.0, license MIT -> AGPL-3.0-only",
    ]
    monkeypatch.setattr("sys.argv", ["bill-changes", str(files[0]), str(files[0])])
    assert main() == 0
    assert capsys.readouterr().out == "No package has changed.\n"


@pytest.mark.slow("it starts a process that reads all packages")
def test_the_bill_of_this_tree_names_licenses_and_a_changed_version_is_found() -> None:
    bill = build_bill(ROOT, Path(sys.prefix))
    # Packages for other platforms are not installed, so that their licenses are not known.
    unknown = {component["name"] for component in bill["components"] if not component.get("licenses")}
    assert len(unknown) < 10 < len(bill["components"])
    older = copy.deepcopy(bill)
    (changed,) = [component for component in older["components"] if component["name"] == "connexion"]
    changed["version"] = "3.2.0"
    lines = compare_bills(older, bill)
    assert [line.partition(" -> ")[0] for line in lines] == ["changed  pypi/connexion 3.2.0"]
