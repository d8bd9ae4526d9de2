"""What commands print: one JSON document with `--json`, and lines for people without."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import click

from sartiq import APIError, JobFailedError, SartiqError, WaitTimeoutError
from sartiq._call import to_json
from sartiq.errors import APIConnectionError, AuthenticationError, ConfigurationError, PermissionDeniedError

EXIT_CODES = """
Exit codes:
  0    done
  1    an unexpected error
  2    wrong usage
  3    not signed in, or not allowed
  4    the server rejected the request
  5    the server is not reachable, overloaded or broken
  6    the work ended without success, or a part of it failed
  7    the work did not end in time; it continues on the server
  130  interrupted
"""


@dataclass(frozen=True)
class Output:
    """Where a command writes its result and its progress."""

    as_json: bool

    def result(self, data: Any, *lines: str) -> None:
        """Print the result of the command: the data as JSON, or the lines."""
        if self.as_json:
            click.echo(write_json(data, sys.stdout, indent=2))
        else:
            for line in lines:
                click.echo(line)

    def note(self, text: str) -> None:
        """Print a step to standard error, for people only."""
        if not self.as_json:
            click.echo(text, err=True)

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[float], None]]:
        """Show a progress bar while the block runs. It is fed with percentages, on a terminal only."""
        if self.as_json:
            yield lambda percent: None
            return
        # A bar that is wider than the terminal would be drawn on a new line each time.
        columns = shutil.get_terminal_size().columns
        width = max(8, min(32, columns - len(label) - len("  [] 100%  00:00:00  ")))
        with click.progressbar(length=100, label=label, file=sys.stderr, width=width) as bar:

            def show(percent: float) -> None:
                if percent > bar.pos:
                    bar.update(int(percent) - bar.pos)

            yield show


def write_json(data: Any, stream: TextIO, indent: int | None = None) -> str:
    """Return data as JSON, in ASCII if the encoding of the stream does not have all characters."""
    is_unicode = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
    return json.dumps(data, default=to_json, indent=indent, ensure_ascii=not is_unicode)


def read_notes(error: BaseException) -> list[str]:
    """Return what a command added to an error: what was done before, and how to go on."""
    return list(getattr(error, "__notes__", ()))


def describe_error(error: SartiqError) -> dict[str, Any]:
    """Return an error as data."""
    data: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if notes := read_notes(error):
        data["notes"] = notes
    if isinstance(error, APIError):
        data |= {"status": error.status, "code": error.code, "request_id": error.request_id}
        data["violations"] = [{"pointer": item.pointer, "message": item.message} for item in error.violations]
    return data


def find_exit_code(error: SartiqError) -> int:
    """Return the exit code of an error."""
    match error:
        case ConfigurationError() | AuthenticationError() | PermissionDeniedError():
            return 3
        case APIError() if error.status >= 500 or error.status == 429:
            return 5
        case APIError():
            return 4
        case APIConnectionError():
            return 5
        case JobFailedError():
            return 6
        case WaitTimeoutError():
            return 7
    return 1
