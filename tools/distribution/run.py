"""`make dist`: build what a release publishes into dist/, the same bytes for the same commit.

It builds the conformance kit, the clients of clients/, the context of the container image with a bill of
materials, and SHA256SUMS. It does not build the image, which needs a container engine, and publishes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from tools.clients import python_package, typescript
from tools.distribution import bills

ROOT = Path(__file__).parents[2]
KIT = "tools/conformance"
IMAGE_FILES = ("Dockerfile", ".dockerignore")
"""The files of the image's context that are not copied to the image."""
CHECKSUMS = "SHA256SUMS"


class DistFailed(Exception):
    """A tool failed. The message has its output."""


def read_version() -> str:
    """Return the version of the server and of the contract."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def read_commit_time() -> int:
    """Return the time of the last commit, or SOURCE_DATE_EPOCH, in seconds since 1970.

    It is the modification time of all files in archives (https://reproducible-builds.org/specs/source-date-epoch/).
    """
    return int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct"))


def list_files(*folders: str) -> list[str]:
    """Return the committed files below folders, so that no other file of the work tree is published."""
    return sorted(run("git", "ls-files", "-z", "--", *folders).rstrip("\0").split("\0"))


def list_image_files() -> list[str]:
    """Return the files of the image's context: those of .dockerignore, and the two about the image."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    included = [line.removeprefix("!") for line in lines if line.startswith("!")]
    return list_files(*included, *IMAGE_FILES)


def build_context(seconds: int) -> bytes:
    """Return the context of the image as a tar archive with fixed owners, modes and times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in list_image_files():
            content = (ROOT / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), seconds, 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def build_bill_of_materials(version: str) -> bytes:
    """Return the packages of the image in CycloneDX."""
    try:
        document = bills.build_bill(ROOT, Path(sys.prefix))
    except subprocess.CalledProcessError as error:
        raise DistFailed(f"{error}\n{error.stdout}{error.stderr}") from error
    assert document["metadata"]["component"]["version"] == version
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def build_kit(target: Path) -> None:
    """Build the wheel and the source distribution of the conformance kit."""
    with tempfile.TemporaryDirectory() as name:
        for file in list_files(KIT):
            copy = Path(name, file)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, copy)
        # Its backend is flit, in the version of requirements-dev.txt.
        uv = [
            str(Path(sys.executable).with_name("uv")),
            "build",
            "--quiet",
            "--offline",
            "--no-create-gitignore",
        ]
        options = ["--no-build-isolation", "--python", sys.executable, "--out-dir", str(target)]
        run(*uv, *options, cwd=Path(name, KIT))


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of all files, for `sha256sum --check`."""
    files = sorted(path.name for path in folder.iterdir())
    lines = [f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n" for file in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a tool and return what it printed.

    Raises:
        DistFailed: It failed.
    """
    outcome = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if outcome.returncode:
        raise DistFailed(f"{' '.join(command)}\n{outcome.stdout}{outcome.stderr}")
    return outcome.stdout


def build(folder: Path) -> None:
    """Build all artifacts into a folder, which is emptied."""
    version, seconds = read_version(), read_commit_time()
    # flit and CycloneDX take the time from it.
    os.environ["SOURCE_DATE_EPOCH"] = str(seconds)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    python_package.generate_package(python_package.ROOT / "openapi" / "openapi.json")
    python_package.build_distributions(folder)
    build_kit(folder)
    typescript.build(folder)  # npm gives all files of the tarball the same time
    image = f"sartiq-backend-api-{version}"
    (folder / f"{image}-image.tar").write_bytes(build_context(seconds))
    (folder / f"{image}.cdx.json").write_bytes(build_bill_of_materials(version))
    write_checksums(folder)


def main() -> int:
    """Build, print the files with their sizes, and return the exit status."""
    parser = argparse.ArgumentParser(prog="make dist", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "dist", help="default: dist")
    folder = parser.parse_args().folder.resolve()
    try:
        build(folder)
    except (DistFailed, typescript.PackageNotBuilt) as error:
        print(error, file=sys.stderr)
        return 1
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>10,}  {path.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
