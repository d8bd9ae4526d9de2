"""`make contract`: start the server on a fresh database and test it against the contract with Schemathesis.

All checks and phases run. The seed is printed and decides which requests are sent, so that a failure can be
reproduced. The stateful phase is our own (tests/contract/fuzzing/stateful.py) and runs on a second fresh
server. A failed step prints the errors that the server logged, and keeps the log.

exit status: 0 no failure, 1 a failure, 2 the run could not start a server or database, or an option is wrong
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.exc import OperationalError

from tests.contract.fuzzing import image_urls
from tests.contract.fuzzing.client import UNREACHABLE_HOST
from tests.support.servers.identity_provider import run_provider_process
from tools.conformance.sartiq_conformance.contract import set_closed_responses
from tools.servers.databases import create_database
from tools.servers.http_recorder import run_http_recorder
from tools.servers.server import ROOT, ServerDidNotStart, running_server

PHASES = ("examples", "coverage", "fuzzing")
WALK = "walk"
DOCUMENTS = {"3.1": ROOT / "openapi/openapi.json", "3.0": ROOT / "openapi/openapi-3.0.json"}
CONFIGURATION = "tests/contract/fuzzing/schemathesis.toml"
DEFAULT_EXAMPLES = 20
SECONDS_TO_START = 180
"""A busy machine is not a failure of the server."""
LOG_FOLDER = ROOT / ".reports/contract"
MAX_PRINTED_ERRORS = 5
MAX_PRINTED_LINES = 60
LOG_RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]+) \[")
"""The start of a record in the server's log, as `studio.infrastructure.telemetry.logs` formats it."""
# Long polling and event streams must not slow the run down.
SHORT_TIMEOUTS = {"MAX_WAIT_SECONDS": "2", "SSE_MAX_SECONDS": "5"}

# Returns the command of a step for the URL of a server, the options and the seed.
Step = Callable[[str, argparse.Namespace, int], list[str]]


@contextmanager
def server_under_test(module: str, is_mock: bool) -> Iterator[tuple[str, Path, str, str]]:
    """Run the server on a fresh database.

    Yields its URL, its log file, and the URLs of the image host and of the identity provider.
    """
    with (
        run_provider_process() as provider,
        tempfile.TemporaryDirectory(prefix="sartiq-contract-") as name,
        run_http_recorder(image_urls.respond) as image_host,
    ):
        folder = Path(name)
        with nullcontext("") if is_mock else create_database() as database_url:
            environment = {
                "SARTIQ_SEED": "contract",
                "DATABASE_URL": database_url,
                "SARTIQ_MODE": "mock" if is_mock else "live",
                "OUTBOUND_ALLOWED_HOSTS": ",".join(
                    (UNREACHABLE_HOST, image_host.host, urlsplit(provider).netloc)
                ),
                "DNS_SERVERS": UNREACHABLE_HOST,
                **SHORT_TIMEOUTS,
            }
            with running_server(folder, module, seconds_to_start=SECONDS_TO_START, **environment) as server:
                yield server.url, server.log, image_host.url, provider


def write_closed_document(version: str) -> Path:
    """Write the contract with closed objects in responses, and return the file.

    The published schemas allow unknown properties, but the server must not send any.
    """
    document = json.loads(DOCUMENTS[version].read_bytes())
    path = Path(LOG_FOLDER) / f"closed-{version}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(set_closed_responses(document, is_closed=True)), encoding="utf-8")
    return path


def fuzz_command(url: str, options: argparse.Namespace, seed: int) -> list[str]:
    """Return the Schemathesis command that sends generated requests to each operation."""
    command = [
        str(Path(sys.executable).with_name("st")),
        "--config-file", CONFIGURATION,
        "run", str(write_closed_document(options.document)),
        "--url", url,
        "--seed", str(seed),
        "--max-examples", str(2 if options.quick else options.examples),
        "--phases", ",".join(phase for phase in options.phases if phase != WALK),
    ]  # fmt: skip
    if options.quick:
        # Two examples cannot reach everything, so warnings about unreached parts are noise.
        command += ["--warnings", "off"]
    for name in options.operation or []:
        command += ["--include-operation-id", name]
    if options.report:
        command += ["--report", "junit,html", "--report-dir", options.report]
    return command


def walk_command(_url: str, options: argparse.Namespace, seed: int) -> list[str]:
    """Return the command of the stateful phase, which follows the links of the contract."""
    command = [sys.executable, "-m", "tests.contract.fuzzing.stateful", "--seed", str(seed)]
    command += ["--document", str(write_closed_document(options.document))]
    for name in options.operation or []:
        command += ["--operation", name]
    return command


def list_steps(phases: tuple[str, ...], is_mock: bool = False) -> list[Step]:
    """Return the steps, each for a new server. A mock stores nothing, so it has no stateful step."""
    steps: list[Step] = [fuzz_command] if set(phases) - {WALK} else []
    return [*steps, walk_command] if WALK in phases and not is_mock else steps


def list_errors(log: str) -> list[str]:
    """Return the records of a log that are errors or are followed by a traceback, each with all its lines."""
    records: list[list[str]] = []
    for line in log.splitlines():
        if LOG_RECORD.match(line) or not records:
            records.append([line])
        else:
            # A traceback, of the record or of a thread that ended without one.
            records[-1].append(line)
    return ["\n".join(lines) for lines in records if is_error(lines)]


def is_error(lines: list[str]) -> bool:
    """Return whether a log record is of level ERROR or above, or is followed by a traceback."""
    record = LOG_RECORD.match(lines[0])
    if record is not None and record["level"] == "CRITICAL":
        return True
    # Not only in the place of the level: a line that another program formats counts too.
    return any(" ERROR " in line or "Traceback" in line for line in lines)


def report_failure(errors: list[str], log: Path, kept: Path) -> None:
    """Print the errors of the server with their tracebacks, copy its log to `kept` and print where it is."""
    for error in errors[:MAX_PRINTED_ERRORS]:
        lines = error.splitlines()
        # The last lines of a traceback name the exception, the first ones the event.
        omitted = len(lines) - MAX_PRINTED_LINES
        if omitted > 0:
            half = MAX_PRINTED_LINES // 2
            lines = [*lines[:half], f"... {omitted} lines omitted", *lines[-half:]]
        print("The server logged:", *lines, sep="\n  ")
    if len(errors) > MAX_PRINTED_ERRORS:
        print(f"The server logged {len(errors)} errors; the log contains the others")
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(log, kept)
    print(f"The server's log is kept: {kept}", flush=True)


def run_step(step: Step, options: argparse.Namespace, seed: int) -> bool:
    """Run a step on a new server; return whether it found no failure and the server logged no error."""
    with server_under_test(options.server, options.mock) as (url, log, image_host_url, provider):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            # The order of sets of strings decides what Schemathesis sends first.
            "PYTHONHASHSEED": "0",
            "SARTIQ_CONTRACT_URL": url,
            "SARTIQ_CONTRACT_SEED": str(seed),
            "SARTIQ_CONTRACT_OUTBOX": str(log.parent / "outbox"),
            "SARTIQ_CONTRACT_PICTURES": image_host_url,
            "SARTIQ_CONTRACT_PROVIDER": provider,
        }
        status = subprocess.run(step(url, options, seed), cwd=ROOT, env=environment, check=False).returncode
        errors = list_errors(log.read_text(errors="replace"))
        has_passed = status == 0 and not errors
        if not has_passed:
            name = f"{'mock' if options.mock else 'server'}-{step.__name__.removesuffix('_command')}"
            report_failure(errors, log, Path(options.logs) / f"{name}-seed-{seed}.log")
    return has_passed


def parse_phases(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of phases.

    Raises:
        ValueError: A phase does not exist.
    """
    phases = tuple(text.split(","))
    if set(phases) - {*PHASES, WALK}:
        raise ValueError(text)
    return phases


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="make contract ARGS=...", description=__doc__)
    parser.add_argument("--mock", action="store_true", help="test the mock server")
    parser.add_argument("--seed", type=int, help="repeat a run with this seed (default: random)")
    parser.add_argument(
        "--examples", type=int, default=DEFAULT_EXAMPLES, help="generated requests per operation"
    )
    parser.add_argument("--quick", action="store_true", help="smoke test: two requests per operation")
    parser.add_argument(
        "--phases",
        type=parse_phases,
        default=(*PHASES, WALK),
        help=f"comma-separated list of {', '.join(PHASES)} and {WALK} (default: all)",
    )
    parser.add_argument("--operation", action="append", help="test only this operationId; repeatable")
    parser.add_argument(
        "--document", choices=DOCUMENTS, default="3.1", help="version of OpenAPI that the fuzzer reads"
    )
    parser.add_argument("--report", help="folder for JUnit and HTML reports")
    parser.add_argument("--server", default="handlers", help="module that starts the server under test")
    parser.add_argument("--logs", default=LOG_FOLDER, help="folder for the server logs of failed steps")
    options = parser.parse_args(arguments)
    if options.quick:
        # Other suites send the examples of every operation already.
        options.phases = ("fuzzing",)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the fuzzer and return the exit status."""
    options = parse_arguments(arguments)
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    name = f"Contract run{' on the mock' if options.mock else ''}, seed {seed}"
    print(name, flush=True)
    try:
        results = [run_step(step, options, seed) for step in list_steps(options.phases, options.mock)]
    except OperationalError as error:
        print(f"Not started: no PostgreSQL server accepts TEST_POSTGRESQL_URL. {error.orig}", file=sys.stderr)
        return 2
    except ServerDidNotStart as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{name}: {'passed' if all(results) else 'FAILED'}", flush=True)
    return int(not all(results))


if __name__ == "__main__":
    raise SystemExit(main())
