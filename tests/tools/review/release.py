"""`make release VERSION=x.y.z`: freezes the contract, when the version fits what has changed.

It writes info.version, the bundle, openapi/released/v1.json, openapi/CHANGELOG.md and the version in
pyproject.toml; committing and tagging is left to who releases.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.tools.review import tools
from tests.tools.review.changes import Change, list_changes, operation_ids_by_path, required_bump
from tests.tools.review.report import render_changes_markdown
from tests.tools.review.review import Comparison

CHANGELOG = tools.ROOT / "openapi" / "CHANGELOG.md"
HEAD = """\
# Changes of the API

Written by `make release` from the difference of two contracts, the newest on top.
"""
Version = tuple[int, int, int]


class ReleaseRejected(Exception):
    """A release that must not be made; the message says why."""


def parse_version(text: str) -> Version:
    """Return the three numbers of a version; Refused when there are not three."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", text):
        raise ReleaseRejected(
            f"{text!r} is no version: three numbers are wanted, as in `make release VERSION=1.4.0`."
        )
    major, minor, patch = (int(part) for part in text.split("."))
    return major, minor, patch


def check_version(version: str, last: str, changes: list[Change]) -> None:
    """Raise Refused unless a version is higher than the last one, by as much as the changes ask for."""
    new, old = parse_version(version), parse_version(last)
    if new <= old:
        raise ReleaseRejected(f"{version} is not higher than {last}, the last release.")
    bump = required_bump(changes)
    if bump is None:
        raise ReleaseRejected(f"Nothing has changed since {last}.")
    lowest = {
        "major": (old[0] + 1, 0, 0),
        "minor": (old[0], old[1] + 1, 0),
        "patch": (old[0], old[1], old[2] + 1),
    }[bump]
    if new < lowest:
        gravest = [change for change in changes if change.impact == changes[0].impact]
        listed = "\n".join(f"  {change.text}" for change in gravest[:10])
        wanted = ".".join(map(str, lowest))
        raise ReleaseRejected(
            f"{version} is too low: these changes are {gravest[0].impact}, so {wanted} at least.\n{listed}"
        )


def render_section(version: str, day: datetime.date, comparison: Comparison, operations_count: int) -> str:
    """Return what the changelog says of one release."""
    lines = [f"## {version} - {day.isoformat()}", ""]
    if comparison.changes is None:
        lines += [f"The first release: {operations_count} operations.", ""]
    else:
        lines += render_changes_markdown(comparison)
    return "\n".join(lines)


def prepend_section(changelog: str, new: str) -> str:
    """Return the changelog with a section on top of the others."""
    older = changelog.removeprefix(HEAD).strip()
    return "\n".join([HEAD, new.strip(), *(["", older] if older else [])]) + "\n"


def release(version: str, day: datetime.date) -> list[str]:
    """Make the release and return what was written; Refused or ToolFailed when nothing was."""
    parse_version(version)
    dirty = _git("status", "--porcelain")
    if dirty:
        raise ReleaseRejected(f"Commit or take back what is not committed:\n{dirty}")
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        contract = tools.build_bundle(tools.SOURCE, folder / "openapi.json")
        comparison = Comparison("Released", "")
        if tools.RELEASED.exists():
            last = tools.read_bundle(tools.RELEASED)
            comparison.changes = list_changes(last, contract, folder)
            comparison.ids = operation_ids_by_path(last) | operation_ids_by_path(contract)
            check_version(version, last["info"]["version"], comparison.changes)
        elif parse_version(version) < parse_version(contract["info"]["version"]):
            raise ReleaseRejected(f"{version} is lower than info.version, {contract['info']['version']}.")
    _replace(tools.SOURCE, r"^  version: .*$", f"  version: {version}")
    _replace(tools.ROOT / "pyproject.toml", r'^version = ".*"$', f'version = "{version}"')
    tools.RELEASED.parent.mkdir(exist_ok=True)
    tools.build_bundle(tools.SOURCE, tools.BUNDLE)
    tools.RELEASED.write_bytes(tools.BUNDLE.read_bytes())
    old = CHANGELOG.read_text(encoding="utf-8") if CHANGELOG.exists() else HEAD
    new = render_section(version, day, comparison, len(operation_ids_by_path(contract)))
    CHANGELOG.write_text(prepend_section(old, new), encoding="utf-8")
    return _git("status", "--porcelain", "--untracked-files=all").splitlines()


def _replace(path: Path, pattern: str, line: str) -> None:
    """Replace the first line that matches."""
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(pattern, line, text, count=1, flags=re.MULTILINE), encoding="utf-8")


def _git(*arguments: str) -> str:
    outcome = subprocess.run(["git", *arguments], cwd=tools.ROOT, check=True, capture_output=True, text=True)
    return outcome.stdout.rstrip()


def main() -> int:
    """Release, print what was written, and return 0; 1 when it is refused."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", nargs="?", default="", help="three numbers, as in 1.4.0")
    version = parser.parse_args().version
    try:
        written = release(version, datetime.datetime.now(datetime.UTC).date())
    except (ReleaseRejected, tools.ToolFailed) as error:
        print(f"No release: {error}")
        return 1
    print(f"Release {version} is written. Read openapi/CHANGELOG.md, commit, tag v{version}:")
    print("\n".join(written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
