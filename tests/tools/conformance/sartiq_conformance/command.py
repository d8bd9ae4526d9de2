"""Check that a running server conforms to a contract: the one that it publishes, or one of yours.

A run creates one organization, changes nothing outside of it, and deletes what it has made at the end.

exit status:
  0  the server conforms
  1  the server does not conform: the output and both reports name the failed checks
  2  the server cannot be reached or used, and no report is written
  3  all other checks passed, but the kit has a defect: the output and both reports name it
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent

from hypothesis.configuration import set_hypothesis_home_dir

from sartiq_conformance import behaviour, parts
from sartiq_conformance.reports import Result, Run, summarize, write_html, write_junit
from sartiq_conformance.target import ServerNotUsable, Target, describe_error

PARTS: dict[str, str] = {
    "flow": "the main workflow, from a brand to an approved image",
    "errors": "the format of errors",
    "authentication": "each protected operation without a credential",
    "behaviour": "rows, lists, filters, preconditions, retries and deletions",
    "fuzzing": "generated requests",
}
PROGRESS_SECONDS = 10


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
    add("--token", default=token, help=token_help)
    contract_help = "OpenAPI document (JSON or YAML) to check against; default: what the server publishes"
    add("--contract", metavar="FILE", type=Path, help=contract_help)
    add("--organization", metavar="ID", help="write to this organization instead of a new one")
    descriptions = "; ".join(f"{name}: {description}" for name, description in PARTS.items())
    only_help = f"run only this part; can be repeated. {descriptions}"
    add("--only", metavar="PART", choices=PARTS, action="append", help=only_help)
    add("--keep", action="store_true", help="do not delete what the run has made")
    add(
        "--allow-additional-properties",
        action="store_true",
        help="accept properties in responses that the contract lacks: the server is newer than the contract",
    )
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
    options = parser.parse_args(arguments)
    if not options.token:
        parser.error("the following arguments are required: --token, or the variable SARTIQ_TOKEN")
    for report in (options.junit, options.html):
        try:
            if report:
                report.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            # Say so now: a run takes minutes.
            parser.error(f"{report} cannot be written: {error.strerror}")
    return options


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


def run_part(part: str, checks: list[parts.Check]) -> Iterator[Result]:
    """Run the checks of one part, print the failed ones and the progress, and yield all results."""
    part_started_at = printed_at = time.monotonic()
    failed = 0
    for number, (name, check) in enumerate(checks, 1):
        started_at, problem, is_defect = time.monotonic(), "", False
        try:
            check()
        except parts.FINDINGS as error:
            problem = describe_error(error)
            failed += 1
            print_line(f"FAILED {part}: {name}\n{indent(problem, '  ')}")
        except Exception as error:  # noqa: BLE001 - the other checks still say something about the server
            problem, is_defect = (
                f"The kit has a defect. {describe_error(error)}\n{traceback.format_exc()}",
                True,
            )
            print_line(f"NOT CHECKED {part}: {name}\n{indent(problem, '  ')}")
        now = time.monotonic()
        yield Result(part, name, now - started_at, problem, is_defect)
        if now - printed_at > PROGRESS_SECONDS and number < len(checks):
            print_line(f"{part}: {number} of {len(checks)} checks, {failed} failed")
            printed_at = now
    print_line(f"{part}: {len(checks)} checks, {failed} failed, {time.monotonic() - part_started_at:.1f} s")


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, write the reports, and return the exit status."""
    options = parse_arguments(arguments)
    # Hypothesis would write a folder to the working directory.
    with tempfile.TemporaryDirectory(prefix="sartiq-conformance-") as folder:
        set_hypothesis_home_dir(folder)
        return check_server(options)


def check_server(options: argparse.Namespace) -> int:
    """Check the server and return the exit status."""
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    place = f"organization {options.organization}" if options.organization else "a new organization"
    contract = options.contract or "the contract that it publishes"
    print_line(
        f"Checking {options.base_url} against {contract}, seed {seed}.\n"
        f"Rows are created in {place}, with one prediction, which costs credits.\n"
        f"They are {'kept' if options.keep else 'deleted at the end'}. Everything else is only read,\n"
        f"with up to {options.examples} generated requests per operation."
    )
    run = Run(options.base_url, str(options.contract or "published"), seed, datetime.now(UTC))
    started_at = time.monotonic()
    try:
        target = Target(
            options.base_url, options.token, options.contract, options.allow_additional_properties
        )
        if options.organization:
            target.use_organization(options.organization)
        else:
            target.create_organization(f"Conformance run {seed}")
    except ServerNotUsable as error:
        print_line(f"The server cannot be reached or used: {error}")
        return 2
    print_line(f"Organization {target.organization_id}")
    run.server_version, run.contract_version = target.read_version(), target.contract["info"]["version"]
    checks_by_part: dict[str, Callable[[], Iterator[parts.Check]]] = {
        "flow": lambda: parts.main_flow_checks(target),
        "errors": lambda: parts.problem_checks(target),
        "authentication": lambda: parts.authentication_checks(target),
        "behaviour": lambda: behaviour.behaviour_checks(target),
        "fuzzing": lambda: parts.fuzz_checks(target, options.examples, seed),
    }
    try:
        for part in PARTS:
            if part in (options.only or PARTS):
                run.results += run_part(part, list(checks_by_part[part]()))
    finally:
        left = target.made if options.keep else target.clean_up()
        if left:
            print_line("Left behind:\n" + indent("\n".join(left), "  "))
    run.seconds = time.monotonic() - started_at
    if options.junit:
        write_junit(options.junit, run.results)
    if options.html:
        write_html(options.html, run)
    print_line(summarize(run.results))
    return find_status(run.results)


def find_status(results: list[Result]) -> int:
    """Return the exit status of a run."""
    if any(result.problem and not result.is_defect for result in results):
        return 1
    return 3 if any(result.is_defect for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
