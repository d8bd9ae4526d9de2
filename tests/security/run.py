"""`make security`: run the tests of all security risks and print a table of the results.

The tests are those named `test_sNN_...` anywhere below `tests`, where NN is the number of a row of the
table. They run in full (`--long`). A row without a test fails the run.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.security.plugin import NUMBERED, REQUESTS

TESTS = Path(__file__).parents[1]

SECURITY_ROWS = {
    1: "Broken object authorization",
    2: "Ids inside bodies and lists",
    3: "Function authorization",
    4: "Mass assignment",
    5: "Property leak",
    6: "SSRF by URL",
    7: "SSRF by redirect",
    8: "SSRF by DNS rebinding",
    9: "Webhook target",
    10: "Upload bomb",
    11: "Wrong type",
    12: "Names of files",
    13: "Brute force",
    14: "User enumeration",
    15: "Token confusion",
    16: "Revocation",
    17: "Refresh re-use",
    18: "Passwords",
    19: "Resource use",
    20: "Credits race",
    21: "Idempotency store",
    22: "Forged callbacks",
    23: "Error hygiene",
    24: "Audit",
    25: "Headers, CORS, methods",
    26: "Signed file URLs",
    27: "Contract audit",
    28: "Contract fuzz",
    29: "Installed as deployed",
    30: "Published accounts",
    31: "Closed by default",
    32: "Backup and restore",
    33: "Decompression",
    34: "Concurrent requests",
    35: "Bodies before authorization",
    36: "Work per request",
    37: "Noisy neighbors",
    38: "Waiting requests",
    39: "CSV injection",
    40: "Withdrawn rows and images",
    41: "Owners of images",
    42: "Full disk",
    43: "Account deleted meanwhile",
    44: "Share links",
    45: "Ambiguous request heads",
    46: "Slugs of organizations",
    47: "Rendering time",
    48: "Limits per account",
    49: "Worst requests",
    50: "Storage of a plan",
    51: "Whose limit it is",
    52: "Rights end with their source",
    53: "Data of staff",
    54: "Names in e-mails",
    55: "Tokens in links",
    56: "Second factor",
    57: "OpenID Connect",
    58: "New devices",
}


class Results:
    """Pytest plugin that collects the results of the tests by row."""

    def __init__(self) -> None:
        self.tests: dict[int, set[str]] = {number: set() for number in SECURITY_ROWS}
        self.outcomes: dict[int, Counter[str]] = {number: Counter() for number in SECURITY_ROWS}
        self.requests: Counter[int] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the report of one phase (setup, call or teardown) of a test."""
        match = NUMBERED.search(report.nodeid)
        number = int(match[1]) if match else 0
        if number not in SECURITY_ROWS:
            return
        if report.when == "call" or report.outcome != "passed":
            self.tests[number].add(report.nodeid)
            self.outcomes[number][report.outcome] += 1
        if report.when == "call":
            self.requests[number] += sum(int(n) for name, n in report.user_properties if name == REQUESTS)

    def result(self, number: int) -> str:
        """Return the result of a row as text."""
        if not self.tests[number]:
            return "NO TEST"
        outcomes = self.outcomes[number]
        if outcomes["failed"]:
            return f"FAILED ({outcomes['failed']})"
        return f"passed, {outcomes['skipped']} skipped" if outcomes["skipped"] else "passed"

    def lines(self) -> list[str]:
        """Return the lines of the table."""
        lines = ["", f"{'#':<4} {'Risk':<28} {'Tests':>6} {'Requests':>9}  Result"]
        for number, risk in SECURITY_ROWS.items():
            tests, requests = len(self.tests[number]), self.requests[number]
            lines.append(f"S{number:<3} {risk:<28} {tests:>6} {requests:>9}  {self.result(number)}")
        total = sum(len(tests) for tests in self.tests.values())
        return [*lines, f"{'':<4} {'all':<28} {total:>6} {self.requests.total():>9}"]

    def list_untested_rows(self) -> list[int]:
        """Return the numbers of the rows without a test."""
        return [number for number, tests in self.tests.items() if not tests]


def list_modules() -> list[str]:
    """Return the paths of the modules with numbered tests."""
    paths = [
        path for path in TESTS.rglob("test_*.py") if re.search(r"def test_s\d\d_", path.read_text("utf-8"))
    ]
    return sorted(str(path) for path in paths)


def main(arguments: Sequence[str]) -> int:
    """Run the tests and print the table; return 0 if every row has a test and all tests passed."""
    results = Results()
    options = ["--long", "--quiet", "-p", "tests.security.plugin", *arguments, *list_modules()]
    status = int(pytest.main(options, plugins=[results]))
    print(*results.lines(), sep="\n", flush=True)
    missing = results.list_untested_rows()
    if missing:
        print("Without a test:", ", ".join(f"S{number}" for number in missing), flush=True)
    return status or int(bool(missing))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
