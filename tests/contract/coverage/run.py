"""`make coverage-contract`: which answers that the contract declares did the tests see on the wire?

Runs the suite that asks for all of them, or the tests that its arguments name, and prints the matrix of
operations and statuses. What is missing stands on top and fails the run; so does an answer that the contract
does not declare.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.contract.coverage.recording import ENVIRONMENT_VARIABLE, Cell, load_recorded_cells
from tests.contract.operations import OPERATIONS

# The smallest suite that sees everything. On one database: the answers of both are the same.
PYTEST_ARGUMENTS = [
    *(str(Path(__file__).parents[1] / "test_every_operation.py"), "--numprocesses=2"),
    *("-k", "test_every_declared_response_is_produced and sqlite"),
]


def declared_cells() -> set[Cell]:
    """Return every answer that the contract declares."""
    return {
        Cell(name, status, media_type)
        for name, operation in OPERATIONS.items()
        for status, media_type in operation.responses
    }


class Coverage:
    """What was declared against what was produced."""

    def __init__(self, declared: set[Cell], produced: set[Cell]) -> None:
        self.declared = declared
        self.missing = declared - produced
        self.undeclared = produced - declared

    @property
    def is_complete(self) -> bool:
        """Whether every declared answer was produced, and no other."""
        return not self.missing and not self.undeclared

    def lines(self) -> list[str]:
        """Return the matrix: incomplete operations first, then what is wrong, then the total."""
        statuses = sorted({cell.status for cell in self.declared})
        wanted = Counter((cell.operation_id, cell.status) for cell in self.declared)
        missing = Counter((cell.operation_id, cell.status) for cell in self.missing)
        lacking = Counter(cell.operation_id for cell in self.missing)
        names = sorted({cell.operation_id for cell in self.declared}, key=lambda name: (-lacking[name], name))
        width = max(len(name) for name in names)
        lines = [f"{'':<{width}} {''.join(f'{status:>4}' for status in statuses)}"]
        for name in names:
            marks = (_mark(wanted[name, status], missing[name, status]) for status in statuses)
            lines.append(f"{name:<{width}} {''.join(f'{mark:>4}' for mark in marks)}".rstrip())
        lines += _format_cells("Not produced by any test", self.missing)
        lines += _format_cells("Answered, and not in the contract", self.undeclared)
        total = len(self.declared)
        share = 100 * (total - len(self.missing)) / total
        # Cut off, because 99.96 % is not all.
        return [*lines, "", f"{total - len(self.missing)} of {total} answers: {int(share * 10) / 10} %"]


def _mark(declared: int, missing: int) -> str:
    """Return how often an answer was produced, by media types: all of one is `+`, none of it `!`."""
    if not declared:
        return ""
    if declared == 1:
        return "!" if missing else "+"
    return f"{declared - missing}/{declared}"


def _format_cells(title: str, cells: Iterable[Cell]) -> list[str]:
    told = [
        f"  {one.operation_id} {one.status} {one.media_type or '(no body)'}" for one in sorted(cells, key=str)
    ]
    return ["", f"{title}:", *told] if told else []


def main(arguments: Sequence[str]) -> int:
    """Run the tests, print the matrix, and return 0 when they passed and saw every declared answer."""
    with TemporaryDirectory() as folder:
        os.environ[ENVIRONMENT_VARIABLE] = folder
        options = ["--quiet", "-p", "tests.contract.coverage.recording", *(arguments or PYTEST_ARGUMENTS)]
        status = int(pytest.main(options))
        coverage = Coverage(declared_cells(), load_recorded_cells(Path(folder)))
    print("", *coverage.lines(), sep="\n", flush=True)
    return status or int(not coverage.is_complete)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
