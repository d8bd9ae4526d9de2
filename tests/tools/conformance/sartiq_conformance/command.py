"""Hold a running server against the contract that it publishes.

A run makes one organization, changes nothing outside of it, and leaves it behind with its rows.

exit status:
  0  the server conforms
  1  it does not: what is printed and both reports say where
  2  it could not be asked
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
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="sartiq-conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--base-url", metavar="URL", required=True, help="address of the API, such as https://host/api/v1")
    # In the environment it is in no list of processes.
    token = os.environ.get("SARTIQ_TOKEN")
    whose = "access token of an account that can pay for one picture; SARTIQ_TOKEN when left out"
    add("--token", default=token, required=not token, help=whose)
    add("--junit", metavar="FILE", type=Path, help="write a JUnit report to this file")
    add("--html", metavar="FILE", type=Path, help="write an HTML report to this file")
    add(
        "--examples",
        metavar="N",
        type=positive_int,
        default=20,
        help="made-up requests an operation, 20 by default",
    )
    add("--seed", metavar="N", type=int, help="repeat a run; drawn when left out")
    return parser.parse_args(arguments)


def positive_int(text: str) -> int:
    """Read a number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def print_line(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run_part(part: str, checks: Iterator[parts.Check]) -> Iterator[Result]:
    """Do the checks of one part and say which fail."""
    for name, check in checks:
        began, problem = time.monotonic(), ""
        try:
            check()
        except parts.FINDINGS as error:
            problem = describe_error(error)
            print_line(f"FAILED {part}: {name}\n{indent(problem, '  ')}")
        yield Result(part, name, time.monotonic() - began, problem)


def main(arguments: list[str] | None = None) -> int:
    """Run every part, write the reports, return the exit status."""
    options = parse_arguments(arguments)
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    print_line(
        f"Holding {options.base_url} against the contract that it publishes, seed {seed}.\n"
        "One organization is made and left there, with a brand, a product, a shooting, made-up rows and\n"
        "one picture, which costs credits. Everything else is only read, with up to\n"
        f"{options.examples} made-up requests for each operation."
    )
    try:
        target = Target(options.base_url, options.token)
        target.create_organization(f"Conformance run {seed}")
    except ServerNotUsable as error:
        print_line(f"The server could not be asked: {error}")
        return 2
    print_line(f"Organization {target.organization_id}")
    todo: dict[str, Callable[[], Iterator[parts.Check]]] = {
        "flow": lambda: parts.main_flow_checks(target),
        "errors": lambda: parts.problem_checks(target),
        "declared": lambda: parts.authentication_checks(target),
        "fuzzed": lambda: parts.fuzz_checks(target, options.examples, seed),
    }
    results = [result for part, checks in todo.items() for result in run_part(part, checks())]
    if options.junit:
        write_junit(options.junit, results)
    if options.html:
        write_html(options.html, options.base_url, seed, results)
    print_line(summarize(results))
    return int(any(result.problem for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
