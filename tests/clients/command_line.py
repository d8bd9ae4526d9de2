"""Run the command `sartiq` as a user with an empty home folder."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tools.clients.python_package import PROJECT


@dataclass(frozen=True)
class Outcome:
    """The end of one run."""

    exit_code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """Return the document on standard output."""
        return json.loads(self.output)


@dataclass
class CommandLine:
    """A user in a folder, with their environment."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str | Path, text: str = "", **environment: str) -> Outcome:
        """Run one command with a text as its standard input."""
        done = subprocess.run(
            [sys.executable, "-c", "from sartiq.cli import main; main()", *arguments],
            cwd=self.folder, input=text, env={**self.environment, **environment},
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def start(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command in the background for the time of the block."""
        process = subprocess.Popen(
            [sys.executable, "-c", "from sartiq.cli import main; main()", *arguments],
            cwd=self.folder, env={**self.environment, **environment}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            try:
                yield process
            finally:
                process.terminate()


def new_user(folder: Path) -> CommandLine:
    """Return a user without any settings."""
    home = folder / "home"
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(PROJECT / "src"),
        "LANG": "C.UTF-8",
    }
    return CommandLine(folder, environment)
