"""Check that a running server conforms to the contract that it publishes.

A run creates one organization, changes nothing outside of it, and leaves it behind with its rows.

exit status:
  0  the server conforms
  1  the server does not conform: the output and both reports name the failed checks
  2  the server cannot be reached or used
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent

from sartiq_conformance import parts
from sartiq_conformance.reports import Result, summarize, write_html, write_junit
from sartiq_conformance.target import ServerNotUsable, Target, describe_error


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="sartiq-conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--base-url", metavar="URL", required=True, help="URL of the API, such as https://host/api/v1")
    # Other users of the machine can read an argument in the process list, but not the environment.
    token = os.environ.get("SARTIQ_TOKEN")
    token_help = "access token of an account with credits for one prediction; default: SARTIQ_TOKEN"
    add("--token", default=token, required=not token, help=token_help)
    add("--junit", metavar="FILE", type=Path, help="write a JUnit report to this file")
    add("--html", metavar="FILE", type=Path, help="write an HTML report to this file")
    add(
        "--examples",
        metavar="N",
        type=positive_int,
        default=20,
        help="generated requests per operation; default: 20",
    )
    add("--seed", metavar="N", type=int, help="random seed, to repeat a run; default: random")
    return parser.parse_args(arguments)


def positive_int(text: str) -> int:
    """Parse a positive integer."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def print_line(text: str) -> None:
    """Print a line and flush the output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run_part(part: str, checks: Iterator[parts.Check]) -> Iterator[Result]:
    """Run the checks of one part, print the failed ones, and yield all results."""
    for name, check in checks:
        started_at, problem = time.monotonic(), ""
        try:
            check()
        except parts.FINDINGS as error:
            problem = describe_error(error)
            print_line(f"FAILED {part}: {name}\n{indent(problem, '  ')}")
        yield Result(part, name, time.monotonic() - started_at, problem)


def main(arguments: list[str] | None = None) -> int:
    """Run all parts, write the reports, and return the exit status."""
    options = parse_arguments(arguments)
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    print_line(
        f"Checking {options.base_url} against the contract that it publishes, seed {seed}.\n"
        "One organization is created and left there, with a brand, a product, a shooting, generated rows\n"
        "and one prediction, which costs credits. Everything else is only read, with up to\n"
        f"{options.examples} generated requests per operation."
    )
    try:
        target = Target(options.base_url, options.token)
        target.create_organization(f"Conformance run {seed}")
    except ServerNotUsable as error:
        print_line(f"The server cannot be reached or used: {error}")
        return 2
    print_line(f"Organization {target.organization_id}")
    checks_by_part: dict[str, Callable[[], Iterator[parts.Check]]] = {
        "flow": lambda: parts.main_flow_checks(target),
        "errors": lambda: parts.problem_checks(target),
        "authentication": lambda: parts.authentication_checks(target),
        "fuzzing": lambda: parts.fuzz_checks(target, options.examples, seed),
    }
    results = [result for part, checks in checks_by_part.items() for result in run_part(part, checks())]
    if options.junit:
        write_junit(options.junit, results)
    if options.html:
        write_html(options.html, options.base_url, seed, results)
    print_line(summarize(results))
    return int(any(result.problem for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
