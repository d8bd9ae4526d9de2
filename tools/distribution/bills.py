"""Write and compare bills of materials: the packages of the image, with versions, licenses and hashes.

`make bill-changes` prints what has changed since the last release, for the release notes and for a reviewer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tools.distribution.licenses import ROOT, find_site_packages, normalize, read_installed, read_rules

SWAGGER_UI = "swagger-ui-dist"
SOURCES = ("requirements.txt", "pyproject.toml", "package.json")
Bill = dict[str, Any]


class Component(NamedTuple):
    """A package of a bill, as it is compared."""

    version: str
    license: str


def build_bill(folder: Path, environment: Path) -> Bill:
    """Return the packages of the image in CycloneDX: those of requirements.txt, and Swagger UI.

    Args:
        folder: The folder with the `SOURCES`.
        environment: A virtual environment with the packages, which know their licenses.

    Raises:
        CalledProcessError: CycloneDX cannot read the files.
    """
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--pyproject", "pyproject.toml"]
    options = ["--output-reproducible", "--of", "JSON", "--mc-type", "application", "requirements.txt"]
    written = subprocess.run([*command, *options], cwd=folder, check=True, capture_output=True, text=True)
    bill: Bill = json.loads(written.stdout)
    site_packages = find_site_packages(environment)
    installed = {} if site_packages is None else read_installed(site_packages, read_rules().names)
    for component in bill["components"]:
        package = installed.get(normalize(component["name"]))
        if package is not None and package.version == component["version"] and package.license:
            component["licenses"] = [{"expression": package.license}]
    packages = json.loads((folder / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    reference = f"pkg:npm/{SWAGGER_UI}@{packages[SWAGGER_UI]}"
    bill["components"].append(
        {
            "type": "library",
            "bom-ref": reference,
            "name": SWAGGER_UI,
            "version": packages[SWAGGER_UI],
            "purl": reference,
            "licenses": [{"license": {"id": "Apache-2.0"}}],
        }
    )
    bill["dependencies"].append({"ref": reference})
    return bill


def compare_bills(old: Bill, new: Bill) -> list[str]:
    """Return a line for each package that was added or removed, or whose version or license has changed."""
    before, after = _read_components(old), _read_components(new)
    lines = []
    for name in sorted(before.keys() | after.keys()):
        was, is_ = before.get(name), after.get(name)
        if was is None and is_ is not None:
            lines.append(f"added    {name} {is_.version} ({is_.license})")
        elif is_ is None and was is not None:
            lines.append(f"removed  {name} {was.version}")
        elif was is not None and is_ is not None and was != is_:
            license_ = "" if was.license == is_.license else f", license {was.license} -> {is_.license}"
            version = was.version if was.version == is_.version else f"{was.version} -> {is_.version}"
            lines.append(f"changed  {name} {version}{license_}")
    return lines


def _read_components(bill: Bill) -> dict[str, Component]:
    """Return the packages of a bill by their name. A missing license is "unknown"."""
    components = {}
    for each in bill.get("components", ()):
        names = [
            entry.get("expression") or entry["license"].get("id") or entry["license"].get("name")
            for entry in each.get("licenses", ())
        ]
        # `pkg:npm/name@1.0`: two registries can have packages with the same name.
        place = str(each.get("purl", "")).partition("@")[0].removeprefix("pkg:") or each["name"]
        components[place] = Component(each["version"], " AND ".join(names) or "unknown")
    return components


def build_released_bill(release: str, environment: Path) -> Bill:
    """Return the bill of an earlier commit, whose packages an environment has."""
    with tempfile.TemporaryDirectory() as name:
        for source in SOURCES:
            shown = subprocess.run(
                ["git", "show", f"{release}:{source}"], cwd=ROOT, check=True, capture_output=True
            )
            Path(name, source).write_bytes(shown.stdout)
        return build_bill(Path(name), environment)


def main() -> int:
    """Print the changes since a release, or those between two files, and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bill-changes", description=__doc__)
    parser.add_argument("bills", nargs="*", type=Path, help="two files in CycloneDX: the old and the new one")
    parser.add_argument(
        "--release", help="instead of files: the commit of a release to compare this tree with"
    )
    options = parser.parse_args()
    if options.release:
        old = build_released_bill(options.release, ROOT / ".venv" / "released")
        new = build_bill(ROOT, ROOT / ".venv" / "server")
    elif len(options.bills) == 2:
        old, new = (json.loads(path.read_text(encoding="utf-8")) for path in options.bills)
    else:
        parser.error("name two files, or a commit with --release")
    lines = compare_bills(old, new)
    print("\n".join(lines) or "No package has changed.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
