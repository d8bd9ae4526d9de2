"""`make coverage-contract`: check which declared responses of the contract the tests see on the wire.

Run the suite that requests all of them, or the tests in the arguments, and print a matrix of operations and
statuses. Operations with missing responses come first. A missing or an undeclared response fails the run.
The same is written to `.reports/contract-coverage/` as JSON, JUnit XML and a badge.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.contract.coverage.recording import ENVIRONMENT_VARIABLE, Cell, load_recorded_cells
from tests.contract.coverage.reports import write_reports
from tests.contract.operations import OPERATIONS
from tools.servers.server import WRAPPER

ROOT = Path(__file__).parents[3]
REPORTS = ROOT / ".reports" / "contract-coverage"

# The smallest suite that produces every response.
PYTEST_ARGUMENTS = [
    *(str(Path(__file__).parents[1] / "test_declared_responses.py"), "--numprocesses=2"),
    *("-k", "test_every_declared_response_is_produced"),
]


def declared_cells() -> set[Cell]:
    """Return every response that the contract declares."""
    return {
        Cell(name, status, media_type)
        for name, operation in OPERATIONS.items()
        for status, media_type in operation.responses
    }


class Coverage:
    """Comparison of the declared and the produced responses."""

    def __init__(self, declared: set[Cell], produced: set[Cell]) -> None:
        self.declared = declared
        self.missing = declared - produced
        self.undeclared = produced - declared

    @property
    def is_complete(self) -> bool:
        """Whether exactly the declared responses were produced."""
        return not self.missing and not self.undeclared

    @property
    def percent(self) -> float:
        """The share of the declared responses that were produced, rounded down: 99.96 % is not complete."""
        total = len(self.declared)
        return 1000 * (total - len(self.missing)) // total / 10

    def lines(self) -> list[str]:
        """Return the matrix, incomplete operations first, the missing and undeclared cells, and the total."""
        statuses = sorted({cell.status for cell in self.declared})
        declared = Counter((cell.operation_id, cell.status) for cell in self.declared)
        missing = Counter((cell.operation_id, cell.status) for cell in self.missing)
        missing_by_operation = Counter(cell.operation_id for cell in self.missing)
        names = sorted(
            {cell.operation_id for cell in self.declared},
            key=lambda name: (-missing_by_operation[name], name),
        )
        width = max(len(name) for name in names)
        lines = [f"{'':<{width}} {''.join(f'{status:>4}' for status in statuses)}"]
        for name in names:
            marks = (_mark(declared[name, status], missing[name, status]) for status in statuses)
            lines.append(f"{name:<{width}} {''.join(f'{mark:>4}' for mark in marks)}".rstrip())
        lines += _format_cells("Not produced by any test", self.missing)
        lines += _format_cells("Produced, and not in the contract", self.undeclared)
        total = len(self.declared)
        return [*lines, "", f"{total - len(self.missing)} of {total} responses: {self.percent} %"]


def _mark(declared: int, missing: int) -> str:
    """Return the number of produced media types, or for a single one `+` (produced) or `!` (missing)."""
    if not declared:
        return ""
    if declared == 1:
        return "!" if missing else "+"
    return f"{declared - missing}/{declared}"


def _format_cells(title: str, cells: Iterable[Cell]) -> list[str]:
    lines = [
        f"  {cell.operation_id} {cell.status} {cell.media_type or '(no body)'}"
        for cell in sorted(cells, key=str)
    ]
    return ["", f"{title}:", *lines] if lines else []


def main(arguments: Sequence[str]) -> int:
    """Run the tests, print the matrix, and return 0 if they pass and produce every declared response."""
    with TemporaryDirectory() as folder:
        options = ["--quiet", "-p", "tests.contract.coverage.recording", *(arguments or PYTEST_ARGUMENTS)]
        # A process of its own: pytest rewrites the assertions of plugins only before they are imported here.
        command = [sys.executable, "-m", "pytest", *options]
        recording = {ENVIRONMENT_VARIABLE: folder, WRAPPER: "tests.contract.coverage.serve"}
        status = subprocess.run(command, env={**os.environ, **recording}).returncode
        coverage = Coverage(declared_cells(), load_recorded_cells(Path(folder)))
    print("", *coverage.lines(), sep="\n", flush=True)
    for path in write_reports(coverage, REPORTS):
        print(f"Written: {path.relative_to(ROOT)}")
    return status or int(not coverage.is_complete)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
