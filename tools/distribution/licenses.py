"""`make licenses`: check that each locked package has a license that this project accepts, without a network.

Python packages are read in the environments where they are installed, npm packages in their lock files.
`licenses.toml` has the licenses that are accepted, and the exceptions with their reasons.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = {
    # requirements.txt, requirements-local.txt and requirements-c2pa.txt are parts of it.
    "requirements-dev.txt": ".venv",
    "requirements-audit.txt": ".venv/audit",
    "requirements-bench.txt": ".venv/bench",
    "requirements-docs.txt": ".venv/docs",
    "requirements-generators.txt": ".venv/generators",
}
NPM_LOCKS = (
    "package-lock.json",
    "clients/typescript/package-lock.json",
    "tests/generators/package-lock.json",
    "tools/bench/peers/fastify/package-lock.json",
)
RULES = Path(__file__).with_name("licenses.toml")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)\s*(;?)", re.MULTILINE)
_TOKEN = re.compile(r"[()]|[^()\s]+(?: WITH [^()\s]+)?")
_CLASSIFIER = "License :: "


class Package(NamedTuple):
    """A locked package. `license` is what its metadata says, with known names replaced; empty for nothing."""

    name: str
    version: str
    license: str


@dataclass(frozen=True)
class Rules:
    """What `licenses.toml` says.

    Attributes:
        accepted: The identifiers of the licenses that are accepted.
        names: Other names of licenses, with their identifiers.
        exceptions: Accepted packages by their name, each with its present license and the reason.
    """

    accepted: frozenset[str]
    names: dict[str, str]
    exceptions: dict[str, dict[str, str]]


def read_rules() -> Rules:
    """Return the rules of `licenses.toml`."""
    rules = tomllib.loads(RULES.read_text(encoding="utf-8"))
    return Rules(frozenset(rules["accepted"]), rules["names"], rules["exceptions"])


def normalize(name: str) -> str:
    """Return the name by which two spellings of a Python package are the same (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_installed(folder: Path, names: dict[str, str]) -> dict[str, Package]:
    """Return the packages of an environment by their name.

    Args:
        folder: The folder `site-packages`.
        names: Other names of licenses, with their identifiers.
    """
    found = distributions(path=[str(folder)])
    packages = [
        Package(normalize(each.metadata["Name"]), each.version, _read_license(each.metadata, names))
        for each in found
    ]
    return {package.name: package for package in packages}


def _read_license(metadata: PackageMetadata, names: dict[str, str]) -> str:
    """Return the SPDX expression of a package, or what it has instead of one."""
    if expressions := metadata.get_all("License-Expression"):
        return str(expressions[0])
    classifiers = [each for each in metadata.get_all("Classifier") or () if each.startswith(_CLASSIFIER)]
    # This one alone names none.
    listed = [each.rpartition(" :: ")[2] for each in classifiers if each != "License :: OSI Approved"]
    # The older field is free text. That of a library which contains another one may name its own only.
    if not listed:
        listed = [str(text).strip().partition("\n")[0] for text in metadata.get_all("License") or ()]
    return " AND ".join(names.get(each, each) for each in sorted(set(listed)))


def read_npm_lock(path: Path) -> list[Package]:
    """Return the packages of a `package-lock.json`."""
    entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["packages"]
    return [
        Package(
            f"npm:{place.rpartition('node_modules/')[2]}",
            entry["version"],
            _to_text(entry.get("license", "")),
        )
        for place, entry in entries.items()
        if place and not entry.get("link")
    ]


def _to_text(license_: Any) -> str:
    # Old packages have a list of objects, any of which you may choose.
    return license_ if isinstance(license_, str) else " OR ".join(f"({each['type']})" for each in license_)


def is_accepted(expression: str, accepted: Collection[str]) -> bool:
    """Return whether the terms of an SPDX expression can be met with accepted licenses alone.

    OR offers a choice, AND demands both and binds stronger (SPDX 2.3, annex D).
    """
    tokens = _TOKEN.findall(expression)

    def read_choice() -> bool:
        result = read_all()
        while tokens and tokens[0].upper() == "OR":
            tokens.pop(0)
            result = read_all() or result
        return result

    def read_all() -> bool:
        result = read_term()
        while tokens and tokens[0].upper() == "AND":
            tokens.pop(0)
            result = read_term() and result
        return result

    def read_term() -> bool:
        name = tokens.pop(0) if tokens else ""
        if name != "(":
            return name in accepted
        result = read_choice()
        return bool(tokens) and tokens.pop(0) == ")" and result

    # A text that is no expression, such as "BSD License", leaves tokens.
    return read_choice() and not tokens


def find_violations(packages: Iterable[Package], rules: Rules) -> list[str]:
    """Return a sentence for each package whose license is not accepted."""
    found = []
    for package in sorted(set(packages)):
        exception = rules.exceptions.get(package.name)
        if exception is not None and exception["license"] == package.license:
            continue
        if not is_accepted(package.license, rules.accepted):
            has = f"the license {package.license}" if package.license else "no license in its metadata"
            found.append(
                f"{package.name} {package.version} has {has}, which is not accepted: use another package, "
                "or add an exception with a reason to tools/distribution/licenses.toml"
            )
    return found


def find_unused_exceptions(packages: Iterable[Package], rules: Rules) -> list[str]:
    """Return a sentence for each exception that no package needs."""
    present = {(package.name, package.license) for package in packages}
    return [
        f"licenses.toml: no {name} has the license {exception['license'] or '(none)'}: remove the exception"
        for name, exception in rules.exceptions.items()
        if (name, exception["license"]) not in present
    ]


def read_locked(lock: Path, installed: dict[str, Package]) -> Iterator[Package | str]:
    """Yield the packages of a requirements file as they are installed, or a sentence for one that is not.

    A package with an environment marker is for another platform or version of Python.
    """
    for name, version, marker in _PINNED.findall(lock.read_text(encoding="utf-8")):
        package = installed.get(normalize(name))
        if package is not None and package.version == version:
            yield package
        elif not marker:
            yield f"{lock.name}: {name} {version} is not installed: `make licenses` installs it"


def find_site_packages(environment: Path) -> Path | None:
    """Return the folder of the packages of a virtual environment; None if it does not exist."""
    return next(environment.glob("lib/python*/site-packages"), None)


def main() -> int:
    """Check all packages, print what is wrong, and return the exit status."""
    rules = read_rules()
    packages: list[Package] = []
    problems: list[str] = []
    missing: list[str] = []
    for name, environment in ENVIRONMENTS.items():
        folder = find_site_packages(ROOT / environment)
        if folder is None:
            missing.append(environment)
            continue
        for each in read_locked(ROOT / name, read_installed(folder, rules.names)):
            if isinstance(each, str):
                problems.append(each)
            else:
                packages.append(each)
    packages += [package for lock in NPM_LOCKS for package in read_npm_lock(ROOT / lock)]
    problems += find_violations(packages, rules)
    if not missing:
        problems += find_unused_exceptions(packages, rules)
    for problem in problems:
        print(problem)
    skipped = f"; not installed: {', '.join(missing)}" if missing else ""
    print(f"{len(set(packages))} packages, {len(problems)} problems{skipped}")
    return 1 if problems or missing else 0


if __name__ == "__main__":
    sys.exit(main())
