"""`sartiq-conformance`: hold a running server against the contract that it publishes.

It makes one organization, changes nothing outside of it, and leaves it behind with its rows.
Exit status: 0 when the server conforms, 1 when it does not, 2 when it could not be asked.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from sartiq_conformance import parts
from sartiq_conformance.reports import Result, write_html, write_junit
from sartiq_conformance.target import Target


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="sartiq-conformance", description=__doc__)
    parser.add_argument("--base-url", required=True, help="address of the API, such as https://host/api/v1")
    parser.add_argument(
        "--token", required=True, help="access token of an account that can pay for one picture"
    )
    parser.add_argument("--junit", type=Path, help="write a JUnit report to this file")
    parser.add_argument("--html", type=Path, help="write an HTML report to this file")
    parser.add_argument("--examples", type=int, default=20, help="made-up requests for each operation")
    parser.add_argument("--seed", type=int, help="repeat a run; drawn when left out")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(part: str, checks: Iterator[parts.Check]) -> Iterator[Result]:
    """Do the checks of one part and say which fail."""
    for name, check in checks:
        began, problem = time.monotonic(), ""
        try:
            check()
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever goes wrong is the finding
            problem = f"{type(error).__name__}: {error}"
            say(f"FAILED {part}: {name}\n  {problem}")
        yield Result(part, name, time.monotonic() - began, problem)


def main(arguments: list[str] | None = None) -> int:
    """Run every part, write the reports, return the exit status."""
    options = parse(arguments)
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    say(
        f"Holding {options.base_url} against the contract that it publishes, seed {seed}.\n"
        "One organization is made and left there, with a brand, a product, a shooting, made-up rows and\n"
        "one picture, which costs credits. Everything else is only read, with up to\n"
        f"{options.examples} made-up requests for each operation."
    )
    try:
        target = Target(options.base_url, options.token)
        made = target.ask("POST", "/organizations/", 201, json={"name": f"Conformance run {seed}"})
        target.organization_id = made.json()["id"]
    except (httpx.HTTPError, AssertionError) as error:
        say(f"The server could not be asked: {error}")
        return 2
    say(f"Organization {target.organization_id}")
    todo: dict[str, Callable[[], Iterator[parts.Check]]] = {
        "flow": lambda: parts.flow(target),
        "errors": lambda: parts.errors(target),
        "declared": lambda: parts.declared(target),
        "fuzzed": lambda: parts.fuzzed(target, options.examples, seed),
    }
    results = [result for part, checks in todo.items() for result in run(part, checks())]
    if options.junit:
        write_junit(options.junit, results)
    if options.html:
        write_html(options.html, options.base_url, results)
    failed = sum(bool(result.problem) for result in results)
    say(f"{len(results)} checks, {failed} failed: the server {'does not conform' if failed else 'conforms'}.")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
