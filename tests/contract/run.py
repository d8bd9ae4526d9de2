"""`make contract`: start the real server on a fresh database and let Schemathesis hold it to the contract.

Every check and every phase runs; the seed is printed, so that a failure can be looked at again.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import os
import secrets
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy

from tests.e2e.server import ROOT, running_server

CONFIGURATION = "tests/contract/fuzzing/schemathesis.toml"
POSTGRESQL = os.environ.get("TEST_POSTGRESQL_URL", "postgresql+psycopg://postgres@127.0.0.1/postgres")


@contextlib.contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of a database that nothing else uses, and remove it afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'contract.db'}"
        return
    name = f"sartiq_contract_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(POSTGRESQL, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    try:
        yield engine.url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
        engine.dispose()


@contextlib.contextmanager
def server_under_test(module: str, kind: str, extra: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Run the server on a fresh database and give its address and its log file."""
    with tempfile.TemporaryDirectory(prefix="sartiq-contract-") as name:
        folder = Path(name)
        with fresh_database(kind, folder) as database_url:
            own = {"SARTIQ_SEED": "contract", "DATABASE_URL": database_url, **extra}
            with running_server(folder, module, **own) as server:
                yield server.url, server.log


class Outcome(enum.Enum):
    """How a run ended. A gap is an operation that its valid cases, by bad luck or always, did not reach."""

    PASSED = "passed"
    GAPS = "found nothing, but did not reach everything"
    FAILED = "FAILED"


def fuzz(url: str, log: Path, options: argparse.Namespace, seed: int) -> Outcome:
    """Run Schemathesis once; a defect in the server's log fails the run too."""
    command = [
        str(Path(sys.executable).with_name("st")),
        "--config-file", CONFIGURATION,
        "run", str(ROOT / "openapi/openapi.json"),
        "--url", url,
        "--seed", str(seed),
        "--max-examples", str(2 if options.quick else options.examples),
    ]  # fmt: skip
    if options.quick:
        # So few cases cannot reach everything: what they miss is no finding of this run.
        command += ["--warnings", "off", "--phases", "examples,fuzzing"]
    elif options.phases:
        command += ["--phases", options.phases]
    for name in options.operation or []:
        command += ["--include-operation-id", name]
    if options.report:
        command += ["--report", "junit,html", "--report-dir", options.report]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SARTIQ_CONTRACT_URL": url,
        "SARTIQ_CONTRACT_OUTBOX": str(log.parent / "outbox"),
    }
    status, gaps = _show(command, environment)
    defects = [
        line
        for line in log.read_text(errors="replace").splitlines()
        if " ERROR " in line or "Traceback" in line
    ]
    if defects:
        print(f"The server logged {len(defects)} defects, the first ones:", *defects[:5], sep="\n  ")
    if defects or (status and not gaps):
        return Outcome.FAILED
    return Outcome.GAPS if status else Outcome.PASSED


def _show(command: list[str], environment: dict[str, str]) -> tuple[int, bool]:
    """Run a command, show what it prints, and return its status and whether warnings alone made it fail."""
    gaps = False
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            gaps = gaps or "Warnings fail the run" in line
    return process.returncode, gaps


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make contract ARGS=...", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seed", type=int, help="repeat a run; drawn when left out")
    parser.add_argument("--examples", type=int, default=25, help="cases an operation")
    parser.add_argument("--quick", action="store_true", help="a first impression: two phases, two cases")
    parser.add_argument("--phases", help="comma-separated, all when left out")
    parser.add_argument("--operation", action="append", help="only this operationId; may be repeated")
    parser.add_argument("--report", help="folder for JUnit and HTML reports")
    parser.add_argument("--server", default="handlers", help="module that starts the server under test")
    return parser.parse_args(arguments)


def run_on(kind: str, options: argparse.Namespace, seed: int) -> Outcome:
    """Run the fuzzer against a fresh server on one kind of database."""
    print(f"Contract run on {kind}, seed {seed}", flush=True)
    with server_under_test(options.server, kind, {}) as (url, log):
        outcome = fuzz(url, log, options, seed)
    print(f"Contract run on {kind}, seed {seed}: {outcome.value}", flush=True)
    return outcome


def main(arguments: list[str] | None = None) -> int:
    """Run the fuzzer on the databases that were asked for; return 0 when nothing was found."""
    options = parse(arguments)
    kinds = ["sqlite", "postgresql"] if options.database == "both" else [options.database]
    passed = True
    for kind in kinds:
        seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
        outcome = run_on(kind, options, seed)
        if outcome is Outcome.GAPS:
            # What one seed does not reach is luck; what two do not reach is a gap of the run, and fails it.
            outcome = run_on(kind, options, seed + 1)
        passed = passed and outcome is Outcome.PASSED
    return int(not passed)


if __name__ == "__main__":
    raise SystemExit(main())
