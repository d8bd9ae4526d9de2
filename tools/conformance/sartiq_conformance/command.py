"""Run the kit: create an organization, run the parts, delete what was made, write the reports.

`diff` as the first argument compares two documents instead, and needs no server.
"""

from __future__ import annotations

import argparse
import io
import os
import secrets
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from textwrap import indent
from types import FrameType

from hypothesis.configuration import set_hypothesis_home_dir

from sartiq_conformance import behaviour, diff_command, parts
from sartiq_conformance.options import PARTS, parse_arguments
from sartiq_conformance.reports import Result, Run, summarize, write_html, write_json, write_junit
from sartiq_conformance.target import ServerNotUsable, Target, describe_error

PROGRESS_SECONDS = 10
SAME_SIGNAL_SECONDS = 2.0
MAX_CONNECTION_FAILURES = 5
"""After so many checks in succession without a connection, the server is taken for gone."""


class Stopped(BaseException):
    """A signal ends the run. Not an `Exception`, so that no check takes it for its own failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class ServerGone(Exception):
    """Several checks in succession found no server."""


def print_line(text: str) -> None:
    """Print a line and flush the output. A reader that is gone (`| head`) does not end the run."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends


def run_part(part: str, checks: list[parts.Check]) -> Iterator[Result]:
    """Run the checks of one part, print the failed ones and the progress, and yield all results.

    Raises:
        ServerNotUsable: The account cannot do what the check needs.
        ServerGone: The server can no longer be reached.
    """
    part_started_at = printed_at = time.monotonic()
    failed = connection_failures = 0
    for number, (name, check) in enumerate(checks, 1):
        started_at, problem, is_defect, has_connection = time.monotonic(), "", False, True
        try:
            check()
        except ServerNotUsable:
            raise
        except parts.FINDINGS as error:
            problem = describe_error(error)
            has_connection = not isinstance(error, parts.CONNECTION_ERRORS)
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
        connection_failures = 0 if has_connection else connection_failures + 1
        if connection_failures == MAX_CONNECTION_FAILURES:
            raise ServerGone
        if now - printed_at > PROGRESS_SECONDS and number < len(checks):
            print_line(f"{part}: {number} of {len(checks)} checks, {failed} failed")
            printed_at = now
    print_line(f"{part}: {len(checks)} checks, {failed} failed, {time.monotonic() - part_started_at:.1f} s")


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, write the reports, and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    is_comparison = arguments[:1] == ["diff"]
    options = argparse.Namespace() if is_comparison else parse_arguments(arguments)
    # Findings quote responses; a console of Windows, or one with `LC_ALL=C`, cannot print all characters.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # Hypothesis would write a folder to the working directory.
    with tempfile.TemporaryDirectory(prefix="sartiq-conformance-") as folder:
        set_hypothesis_home_dir(folder)
        if is_comparison:
            return diff_command.main(arguments[1:], print_line)
        try:
            with signals_raised():
                return check_server(options)
        except Stopped as stopped:
            print_line(f"Stopped by {stopped}.")
            return stopped.status
        except ServerNotUsable as error:
            print_line(f"The server cannot be reached or used: {error}")
            return 2


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise `Stopped` at Ctrl-C and when a CI system cancels the job, so that the run deletes its rows.

    Signals that come together count once: `timeout` and some runners signal the process and then its group. A
    later one ends the deletion, too.
    """
    stopped_at = float("-inf")

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped_at
        if time.monotonic() - stopped_at > SAME_SIGNAL_SECONDS:
            stopped_at = time.monotonic()
            raise Stopped(number)

    previous = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def check_server(options: argparse.Namespace) -> int:
    """Check the server and return the exit status.

    Raises:
        ServerNotUsable: There is no server, contract, account or organization to check.
        Stopped: A signal came before the first check or during the deletion.
    """
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    print_line(describe_plan(options, seed))
    run = Run(options.base_url, str(options.contract or "published"), seed, datetime.now(UTC))
    run.examples = options.examples
    started_at = time.monotonic()
    target = Target(options.base_url, options.token, options.contract, options.allow_additional_properties)
    if warning := target.find_mock_scenario():
        print_line(warning)
    if options.organization:
        target.use_organization(options.organization)
    else:
        target.create_organization(f"Conformance run {seed}")
    run.organization_id = target.organization_id
    print_line(f"Organization {target.organization_id}")
    run.server_version, run.contract_version = target.read_version(), target.contract["info"]["version"]
    checks_by_part: dict[str, Callable[[], Iterator[parts.Check]]] = {
        "flow": lambda: parts.main_flow_checks(target),
        "errors": lambda: parts.problem_checks(target),
        "authentication": lambda: parts.authentication_checks(target),
        "behaviour": lambda: behaviour.behaviour_checks(target),
        "fuzzing": lambda: parts.fuzz_checks(target, options.examples, seed),
    }
    status = None
    try:
        for part in PARTS:
            if part in options.parts:
                for result in run_part(part, list(checks_by_part[part]())):
                    run.results.append(result)
    except Stopped as stopped:
        run.stopped_by, status = f"stopped by {stopped}", stopped.status
        print_line(f"Stopped by {stopped}: deleting what the run has made.")
    except ServerGone:
        run.stopped_by = "stopped because the server could no longer be reached"
    finally:
        run.left_behind = target.made if options.keep else target.clean_up()
        if run.left_behind:
            print_line("Left behind:\n" + indent("\n".join(run.left_behind), "  "))
    run.seconds = time.monotonic() - started_at
    run.status = find_status(run.results) if status is None else status
    if options.junit:
        write_junit(options.junit, run)
    if options.html:
        write_html(options.html, run)
    if options.json:
        write_json(options.json, run)
    print_line(summarize(run))
    return run.status


def describe_plan(options: argparse.Namespace, seed: int) -> str:
    """Return what the run is going to do, for people who run it against a server with data."""
    contract = options.contract or "the contract that it publishes"
    place = f"organization {options.organization}" if options.organization else "a new organization"
    lines = [
        f"Checking {options.base_url} against {contract}, seed {seed}.",
        f"Rows are created in {place} and {'kept' if options.keep else 'deleted at the end'}.",
    ]
    if "flow" in options.parts:
        lines.append("One prediction is made, which costs credits.")
    if "fuzzing" in options.parts:
        lines.append(f"Up to {options.examples} requests per operation are generated, most of them reads.")
    return "\n".join(lines)


def find_status(results: list[Result]) -> int:
    """Return the exit status of a run."""
    if any(result.problem and not result.is_defect for result in results):
        return 1
    return 3 if any(result.is_defect for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
