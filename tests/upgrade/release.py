"""Run the code of a release, and say when a client of it would notice the upgrade."""

from __future__ import annotations

import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tools.servers.server import ROOT


class UpgradeFailed(Exception):
    """A client of the release would notice the upgrade; the message says what."""


def require(condition: object, message: str) -> None:
    """Raise UpgradeFailed unless the condition holds."""
    if not condition:
        raise UpgradeFailed(message)


@dataclass(frozen=True)
class Release:
    """The code of a release, and a Python interpreter with its packages."""

    folder: Path
    python: str

    @property
    def contract(self) -> Path:
        """The bundle of the contract."""
        return self.folder / "openapi" / "openapi.json"

    @property
    def version(self) -> str:
        """The version of the release."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text("utf-8"))["project"]
        return str(project["version"])

    def migrate(self, url: str) -> None:
        """Upgrade the tables of a database to those of the release.

        Raises:
            UpgradeFailed: A migration failed.
        """
        code = "import sys; from db.migrations import upgrade; upgrade(sys.argv[1])"
        run_program([self.python, "-c", code, url], cwd=self.folder)


def unpack_release(commit: str, folder: Path) -> None:
    """Write the files of a commit to a folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def run_program(command: list[str], cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """Run a program and return its output.

    Raises:
        UpgradeFailed: Its status is not 0; the message has the end of its errors.
    """
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"{command[:3]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
