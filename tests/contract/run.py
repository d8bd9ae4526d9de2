"""`make contract`: start the server on a fresh database and test it against the contract with Schemathesis.

All checks and phases run. The seed is printed, so that a failure can be reproduced. The stateful phase is our
own (tests/contract/fuzzing/stateful.py) and runs on a second fresh server.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tests.contract.fuzzing import image_urls
from tests.contract.fuzzing.client import UNREACHABLE_HOST
from tests.e2e.server import ROOT, running_server
from tests.support.databases import create_database
from tests.support.servers.http_recorder import run_http_recorder

PHASES = ("examples", "coverage", "fuzzing")
WALK = "walk"
CONFIGURATION = "tests/contract/fuzzing/schemathesis.toml"
# Long polling and event streams must not slow the run down.
SHORT_TIMEOUTS = {"MAX_WAIT_SECONDS": "2", "SSE_MAX_SECONDS": "5"}

# Returns the command of a step for the URL of a server, the options and the seed.
Step = Callable[[str, argparse.Namespace, int], list[str]]


@contextmanager
def server_under_test(module: str, kind: str) -> Iterator[tuple[str, Path, str]]:
    """Run the server on a fresh database; yield its URL, its log file and the URL of the image host."""
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-contract-") as name,
        run_http_recorder(image_urls.respond) as image_host,
    ):
        folder = Path(name)
        with nullcontext("") if kind == "mock" else create_database(kind, folder) as database_url:
            environment = {
                "SARTIQ_SEED": "contract",
                "DATABASE_URL": database_url,
                "SARTIQ_MODE": "mock" if kind == "mock" else "live",
                "OUTBOUND_ALLOWED_HOSTS": f"{UNREACHABLE_HOST},{image_host.host}",
                **SHORT_TIMEOUTS,
            }
            with running_server(folder, module, **environment) as server:
                yield server.url, server.log, image_host.url


def fuzz_command(url: str, options: argparse.Namespace, seed: int) -> list[str]:
    """Return the Schemathesis command that sends generated requests to each operation."""
    command = [
        str(Path(sys.executable).with_name("st")),
        "--config-file", CONFIGURATION,
        "run", str(ROOT / "openapi/openapi.json"),
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
    for name in options.operation or []:
        command += ["--operation", name]
    return command


def list_steps(kind: str, phases: tuple[str, ...]) -> list[Step]:
    """Return the steps, each for a new server. A mock stores nothing, so it has no stateful step."""
    steps: list[Step] = [fuzz_command] if set(phases) - {WALK} else []
    return [*steps, walk_command] if WALK in phases and kind != "mock" else steps


def run_step(step: Step, kind: str, options: argparse.Namespace, seed: int) -> bool:
    """Run a step on a new server; return whether it found no failure and the server logged no error."""
    with server_under_test(options.server, kind) as (url, log, image_host_url):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SARTIQ_CONTRACT_URL": url,
            "SARTIQ_CONTRACT_OUTBOX": str(log.parent / "outbox"),
            "SARTIQ_CONTRACT_PICTURES": image_host_url,
        }
        status = subprocess.run(step(url, options, seed), cwd=ROOT, env=environment, check=False).returncode
        errors = [
            line
            for line in log.read_text(errors="replace").splitlines()
            if " ERROR " in line or "Traceback" in line
        ]
    if errors:
        print(f"The server logged {len(errors)} errors; the first ones:", *errors[:5], sep="\n  ")
    return status == 0 and not errors


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
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both", "mock"], default="both")
    parser.add_argument("--seed", type=int, help="repeat a run with this seed (default: random)")
    parser.add_argument("--examples", type=int, default=20, help="generated requests per operation")
    parser.add_argument("--quick", action="store_true", help="smoke test: two requests per operation")
    parser.add_argument(
        "--phases",
        type=parse_phases,
        default=(*PHASES, WALK),
        help=f"comma-separated list of {', '.join(PHASES)} and {WALK} (default: all)",
    )
    parser.add_argument("--operation", action="append", help="test only this operationId; repeatable")
    parser.add_argument("--report", help="folder for JUnit and HTML reports")
    parser.add_argument("--server", default="handlers", help="module that starts the server under test")
    options = parser.parse_args(arguments)
    if options.quick:
        # Other suites send the examples of every operation already.
        options.phases = ("fuzzing",)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the fuzzer on the selected databases; return 0 if there is no failure."""
    options = parse_arguments(arguments)
    kinds = ["sqlite", "postgresql"] if options.database == "both" else [options.database]
    passed = True
    for kind in kinds:
        seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
        print(f"Contract run on {kind}, seed {seed}", flush=True)
        results = [run_step(step, kind, options, seed) for step in list_steps(kind, options.phases)]
        has_passed = all(results)
        print(f"Contract run on {kind}, seed {seed}: {'passed' if has_passed else 'FAILED'}", flush=True)
        passed = passed and has_passed
    return int(not passed)


if __name__ == "__main__":
    raise SystemExit(main())
