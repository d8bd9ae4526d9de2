"""`make contract`: start the real server on a fresh database and let Schemathesis hold it to the contract.

Every check and every phase runs; the seed is printed, so that a failure can be looked at again. Its stateful
phase is our own (tests/contract/fuzzing/stateful.py) and has a server of its own, as new as the first.
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
# A run must not spend its time on waits that nothing ends.
SHORT_TIMEOUTS = {"MAX_WAIT_SECONDS": "2", "SSE_MAX_SECONDS": "5"}

# What gives the command of a step for the address of a server, the options and the seed.
Step = Callable[[str, argparse.Namespace, int], list[str]]


@contextmanager
def server_under_test(module: str, kind: str) -> Iterator[tuple[str, Path, str]]:
    """Run the server on a fresh database; give its address, its log file and where pictures elsewhere are."""
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-contract-") as name,
        run_http_recorder(image_urls.respond) as elsewhere,
    ):
        folder = Path(name)
        with nullcontext("") if kind == "mock" else create_database(kind, folder) as database_url:
            own = {
                "SARTIQ_SEED": "contract",
                "DATABASE_URL": database_url,
                "SARTIQ_MODE": "mock" if kind == "mock" else "live",
                "OUTBOUND_ALLOWED_HOSTS": f"{UNREACHABLE_HOST},{elsewhere.host}",
                **SHORT_TIMEOUTS,
            }
            with running_server(folder, module, **own) as server:
                yield server.url, server.log, elsewhere.url


def fuzz_command(url: str, options: argparse.Namespace, seed: int) -> list[str]:
    """Return the command of Schemathesis that sends many cases to each operation."""
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
        # So few cases cannot reach everything: what they miss is no finding of this run.
        command += ["--warnings", "off"]
    for name in options.operation or []:
        command += ["--include-operation-id", name]
    if options.report:
        command += ["--report", "junit,html", "--report-dir", options.report]
    return command


def walk_command(_url: str, options: argparse.Namespace, seed: int) -> list[str]:
    """Return the command that walks along the links of the contract."""
    command = [sys.executable, "-m", "tests.contract.fuzzing.stateful", "--seed", str(seed)]
    for name in options.operation or []:
        command += ["--operation", name]
    return command


def list_steps(kind: str, phases: tuple[str, ...]) -> list[Step]:
    """Return what is run one after the other, each on a new server; a mock remembers nothing to walk to."""
    fuzzed: list[Step] = [fuzz_command] if set(phases) - {WALK} else []
    return [*fuzzed, walk_command] if WALK in phases and kind != "mock" else fuzzed


def run_step(step: Step, kind: str, options: argparse.Namespace, seed: int) -> bool:
    """Run a step on a new server; return whether it found nothing and the server logged no defect."""
    with server_under_test(options.server, kind) as (url, log, elsewhere):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SARTIQ_CONTRACT_URL": url,
            "SARTIQ_CONTRACT_OUTBOX": str(log.parent / "outbox"),
            "SARTIQ_CONTRACT_PICTURES": elsewhere,
        }
        status = subprocess.run(step(url, options, seed), cwd=ROOT, env=environment, check=False).returncode
        defects = [
            line
            for line in log.read_text(errors="replace").splitlines()
            if " ERROR " in line or "Traceback" in line
        ]
    if defects:
        print(f"The server logged {len(defects)} defects, the first ones:", *defects[:5], sep="\n  ")
    return status == 0 and not defects


def parse_phases(text: str) -> tuple[str, ...]:
    """Read a list of phases; raises ValueError for one that there is not."""
    phases = tuple(text.split(","))
    if set(phases) - {*PHASES, WALK}:
        raise ValueError(text)
    return phases


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make contract ARGS=...", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both", "mock"], default="both")
    parser.add_argument("--seed", type=int, help="repeat a run; drawn when left out")
    parser.add_argument("--examples", type=int, default=20, help="cases an operation")
    parser.add_argument("--quick", action="store_true", help="a first impression: two cases an operation")
    parser.add_argument(
        "--phases",
        type=parse_phases,
        default=(*PHASES, WALK),
        help=f"comma-separated, of {', '.join(PHASES)} and {WALK}; all when left out",
    )
    parser.add_argument("--operation", action="append", help="only this operationId; may be repeated")
    parser.add_argument("--report", help="folder for JUnit and HTML reports")
    parser.add_argument("--server", default="handlers", help="module that starts the server under test")
    options = parser.parse_args(arguments)
    if options.quick:
        # The examples are sent by the suites over every operation too.
        options.phases = ("fuzzing",)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the fuzzer on the databases that were asked for; return 0 when nothing was found."""
    options = parse_arguments(arguments)
    kinds = ["sqlite", "postgresql"] if options.database == "both" else [options.database]
    passed = True
    for kind in kinds:
        seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
        print(f"Contract run on {kind}, seed {seed}", flush=True)
        results = [run_step(step, kind, options, seed) for step in list_steps(kind, options.phases)]
        found_nothing = all(results)
        print(f"Contract run on {kind}, seed {seed}: {'passed' if found_nothing else 'FAILED'}", flush=True)
        passed = passed and found_nothing
    return int(not passed)


if __name__ == "__main__":
    raise SystemExit(main())
