"""Run the command `sartiq` as a user with an empty home folder."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from sartiq.cli.app import run
from tools.clients.python_package import PROJECT


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
        """Run one command in this process, with a text as its standard input."""
        output, errors = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, {**self.environment, **environment}, clear=True),
            mock.patch("sys.stdin", io.StringIO(text)),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            exit_code = run([str(argument) for argument in arguments])
        return Outcome(exit_code, output.getvalue(), errors.getvalue())

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
