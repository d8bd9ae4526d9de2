"""`make release VERSION=x.y.z`: freeze the contract, if the version is high enough for the changes.

It writes info.version, the bundle, openapi/released/x.y.z.json, openapi/CHANGELOG.md, the feeds
openapi/changes.atom and openapi/changes.json, the version in pyproject.toml, clients/python,
clients/typescript and deploy/kubernetes, and the names of files and tags in instructions.
It empties openapi/allowed-breaks.yaml, and does not commit or tag.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tools import asyncapi, openapi_30
from tools.conformance.sartiq_conformance.diff.change import IMPACTS, Change, required_bump
from tools.conformance.sartiq_conformance.diff.report import Comparison
from tools.conformance.sartiq_conformance.diff.usage import operation_ids_by_path
from tools.project import Document
from tools.review import tools
from tools.review.allowed_breaks import clear_allowed_breaks, load_allowed_breaks, split_allowed
from tools.review.changelog import render_changelog
from tools.review.changes import list_changes
from tools.review.deprecations import find_overdue
from tools.review.feed import write_feeds
from tools.review.releases import FOLDER, InvalidVersion, Version, find_release, parse_version
from tools.standard_parts import StandardPartsError

TYPESCRIPT = tools.ROOT / "clients" / "typescript"
CHANGELOG = tools.ROOT / "openapi" / "CHANGELOG.md"
MENTIONS = {
    "clients/python/README.md": r"(?<=sartiq-)\d+\.\d+\.\d+(?=-py3)",
    "clients/typescript/README.md": r"(?<=sartiq-client-)\d+\.\d+\.\d+(?=\.tgz)",
    "docs/guides/conformance-kit.md": r"(?<= v)\d+\.\d+\.\d+(?=, | https)",
    "docs/guides/mock-server.md": r"(?<= v)\d+\.\d+\.\d+(?=, | https)",
    "docs/guides/typescript-client.md": r"(?<=sartiq-client-)\d+\.\d+\.\d+(?=\.tgz)",
}
"""The names of files and tags of the release in instructions."""
HEAD = """\
# API changelog

`make release` generates this file from the differences of the contracts. The newest release comes first.
From 1.0 on nothing within `/api/v1` is removed, renamed or retyped; before, each break is listed with its
reason. `changes.atom` and `changes.json` are the same as feeds.
"""
IMPACT_NAMES = {
    "breaking": "breaking changes",
    "security": "security-relevant changes",
    "removed": "removals",
    "deprecated": "deprecations",
    "added": "additions",
    "changed": "compatible changes",
    "imports": "changed import paths",
    "wording": "changed texts",
}


class ReleaseRejected(Exception):
    """The release cannot be made. The message has the reason."""


def parse_new_version(text: str) -> Version:
    """Return the three numbers of the version to release.

    Raises:
        ReleaseRejected: The text is not a version.
    """
    try:
        return parse_version(text)
    except InvalidVersion as error:
        raise ReleaseRejected(f"{error}, for example `make release VERSION=1.4.0`.") from error


def check_version(
    version: str, last: str, changes: list[Change], reasons: Mapping[Change, str] | None = None
) -> None:
    """Check that a version is high enough for the changes since the last one.

    Args:
        reasons: The breaking changes that are allowed. They require a minor version only.

    Raises:
        ReleaseRejected: The version is too low, or nothing has changed.
    """
    new, old = parse_new_version(version), parse_version(last)
    if new <= old:
        raise ReleaseRejected(f"{version} is not higher than {last}, the last release.")
    allowed = reasons or {}
    changes = [one._replace(impact="added") if one in allowed else one for one in changes]
    bump = required_bump(changes)
    if bump is None:
        raise ReleaseRejected(f"Nothing has changed since {last}.")
    lowest = {
        "major": (old[0] + 1, 0, 0),
        "minor": (old[0], old[1] + 1, 0),
        "patch": (old[0], old[1], old[2] + 1),
    }[bump]
    if new < lowest:
        impact = min((change.impact for change in changes), key=IMPACTS.index)
        listed = [f"  {change.text}" for change in changes if change.impact == impact][:10]
        minimum = ".".join(map(str, lowest))
        message = f"{version} is too low: {IMPACT_NAMES[impact]} require at least {minimum}."
        if impact == "breaking" and old[0] == 0:
            message += (
                " Below 1.0, openapi/allowed-breaks.yaml can allow them; `make review` prints the entry."
            )
        raise ReleaseRejected("\n".join([message, *listed]))


def render_section(version: str, day: datetime.date, comparison: Comparison, operations_count: int) -> str:
    """Return the section of one release in the changelog."""
    lines = [f"## {version} - {day.isoformat()}", ""]
    if comparison.changes is None:
        lines += [f"The first release: {operations_count} operations.", ""]
    else:
        lines += render_changelog(comparison)
    return "\n".join(lines)


def prepend_section(changelog: str, new: str) -> str:
    """Return the changelog with a new section before the others."""
    # The head may be that of an earlier version of this module.
    older = changelog[changelog.find("\n## ") + 1 :].strip() if "\n## " in changelog else ""
    return "\n".join([HEAD, new.strip(), *(["", older] if older else [])]) + "\n"


def release(version: str, day: datetime.date) -> list[str]:
    """Make the release and return the changed files.

    Raises:
        ReleaseRejected: The release cannot be made; no file is written.
        ToolFailed: The contract cannot be bundled or compared; no file is written.
    """
    parse_new_version(version)
    released = FOLDER / f"{version}.json"
    if released.exists():
        raise ReleaseRejected(f"{version} was released already: {released.relative_to(tools.ROOT)} exists.")
    uncommitted = _git("status", "--porcelain")
    if uncommitted:
        raise ReleaseRejected(f"There are uncommitted changes: commit or revert them.\n{uncommitted}")
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        contract = tools.build_bundle(tools.SOURCE, folder / "openapi.json")
        if overdue := find_overdue(contract):
            raise ReleaseRejected("\n".join(overdue))
        comparison = Comparison("Released", "")
        if path := find_release(version, is_included=False):
            last = tools.read_bundle(path)
            comparison.changes = list_changes(last, contract)
            comparison.name_operations(last, contract)
            base = last["info"]["version"]
            allowed = load_allowed_breaks()
            _, comparison.reasons = split_allowed(comparison.changes, allowed, base, comparison.ids)
            check_version(version, base, comparison.changes, comparison.reasons)
        elif parse_new_version(version) < parse_version(contract["info"]["version"]):
            raise ReleaseRejected(f"{version} is lower than info.version, {contract['info']['version']}.")
    _replace(tools.SOURCE, r"^  version: .*$", f"  version: {version}")
    _replace(tools.ROOT / "pyproject.toml", r'^version = ".*"$', f'version = "{version}"')
    _replace(
        tools.ROOT / "deploy/kubernetes/kustomization.yaml", r"^    newTag: .*$", f"    newTag: {version}"
    )
    _replace(tools.ROOT / "clients/python/pyproject.toml", r'^version = ".*"$', f'version = "{version}"')
    for name, mention in MENTIONS.items():
        _replace(tools.ROOT / name, mention, version, count=0)
    for name in ("package.json", "package-lock.json"):
        _replace(TYPESCRIPT / name, r'^  "version": ".*"', f'  "version": "{version}"')
    # The lock file repeats the version of its own package.
    _replace(TYPESCRIPT / "package-lock.json", r'^      "version": ".*"', f'      "version": "{version}"')
    FOLDER.mkdir(exist_ok=True)
    tools.build_bundle(tools.SOURCE, tools.BUNDLE)
    openapi_30.DERIVED.write_bytes(openapi_30.derive())
    asyncapi.EXPORT.write_bytes(asyncapi.encode(Document.load(tools.BUNDLE)))
    released.write_bytes(tools.BUNDLE.read_bytes())
    old = CHANGELOG.read_text(encoding="utf-8") if CHANGELOG.exists() else HEAD
    new = render_section(version, day, comparison, len(operation_ids_by_path(contract)))
    CHANGELOG.write_text(prepend_section(old, new), encoding="utf-8")
    write_feeds(CHANGELOG)
    clear_allowed_breaks()
    return _git("status", "--porcelain", "--untracked-files=all").splitlines()


def _replace(path: Path, pattern: str, new: str, count: int = 1) -> None:
    """Replace the first matches, or all if `count` is 0."""
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(pattern, new, text, count=count, flags=re.MULTILINE), encoding="utf-8")


def _git(*arguments: str) -> str:
    try:
        outcome = subprocess.run(
            ["git", *arguments], cwd=tools.ROOT, check=True, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        raise ReleaseRejected(f"git {' '.join(arguments)}: {error.stderr.strip()}") from error
    return outcome.stdout.rstrip()


def main() -> int:
    """Make the release, print the changed files, and return the exit status."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", nargs="?", default="", help="three numbers, for example 1.4.0")
    version = parser.parse_args().version
    try:
        written = release(version, datetime.datetime.now(datetime.UTC).date())
    except (ReleaseRejected, StandardPartsError, tools.ToolFailed) as error:
        print(f"Not released: {error}")
        return 1
    print(f"Release {version} is written. Read openapi/CHANGELOG.md, commit these files and tag v{version}:")
    print("\n".join(written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
