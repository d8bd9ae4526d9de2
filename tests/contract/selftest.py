"""`make contract-selftest`: seed eight defects one by one and check that the contract run finds each.

The same run must pass on the server without a defect, so that the finding is the defect. The result depends
on the seed only. A run with another result prints its report and keeps its server logs below `.reports/`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from tests.contract import run
from tests.contract.seeded_defects import AUTHENTICATION_DEFECTS, DEFECTS

SEED = 2041
LOG_FOLDER = run.ROOT / ".reports/contract-selftest"
# Defect -> the operations of its run, and the code of the check that must find it. Response validation turns
# some defects into a 500, which is found as a server error. Other defects are for the conformance kit.
RUNS = {
    "tenant_leak": (["create_brand", "list_brands", "get_brand"], "ST402"),
    "public_operation": (["create_brand", "list_brands", "get_brand"], "ST901"),
    "deletion_without_effect": (["create_brand", "get_brand", "delete_brand"], "ST301"),
    # Only the stateful phase reads a brand, deletes it and reads it again, which it does at every deletion.
    "stale_read": (["create_brand", "get_brand", "delete_brand"], "ST301"),
    "creation_dropping_a_field": (["create_brand"], "ST101"),
    "undocumented_status": (["create_brand", "get_brand"], "ST101"),
    "valid_data_rejected": (["create_brand"], "ST202"),
    "missing_header": (["create_brand"], "ST101"),
}
EVERY_OPERATION = sorted({name for names, _ in RUNS.values() for name in names})


def run_contract(server: str, operations: list[str], seed: int, logs: Path) -> tuple[bool, str]:
    """Fuzz some operations of a server; return whether the run passed, and its report.

    Args:
        server: The module that starts the server, with its arguments.
        operations: The operationIds.
        seed: The seed of the run.
        logs: The folder that the server logs of a failed run are copied to.
    """
    command = [sys.executable, "-m", "tests.contract.run", "--seed", str(seed)]
    command += ["--examples", "20", "--server", server, "--logs", str(logs)]
    for name in operations:
        command += ["--operation", name]
    completed = subprocess.run(command, cwd=run.ROOT, capture_output=True, text=True, check=False)
    return completed.returncode == 0, completed.stdout + completed.stderr


def find_defect(name: str, seed: int) -> bool:
    """Seed a defect and return whether the right check of the contract run finds it; if not, print why."""
    operations, code = RUNS[name]
    logs = LOG_FOLDER / name
    has_passed, report = run_contract(f"tests.contract.seeded_defects {name}", operations, seed, logs)
    is_found = not has_passed and code in report
    print(f"{'found' if is_found else 'MISSED':10}{name}: {(AUTHENTICATION_DEFECTS | DEFECTS)[name].__doc__}")
    if is_found:
        # The run failed as it should: its logs are no evidence of a problem.
        shutil.rmtree(logs, ignore_errors=True)
    else:
        outcome = "passed" if has_passed else "failed for another reason"
        print(f"The run {outcome}; {code} is not in its report:\n{report}")
    sys.stdout.flush()
    return is_found


def main(arguments: list[str] | None = None) -> int:
    """Try every defect; return 0 if all are found and the unchanged server passes."""
    parser = argparse.ArgumentParser(prog="make contract-selftest ARGS=...", description=__doc__)
    parser.add_argument("--defect", choices=sorted(RUNS), help="seed only this defect")
    parser.add_argument("--seed", type=int, default=SEED, help=f"the seed of all runs (default: {SEED})")
    options = parser.parse_args(arguments)
    names = [options.defect] if options.defect else list(RUNS)
    is_sound, report = run_contract("handlers", EVERY_OPERATION, options.seed, LOG_FOLDER / "unchanged")
    print(f"{'passed' if is_sound else 'FAILED':10}the unchanged server", flush=True)
    if not is_sound:
        print(report, flush=True)
    found = [find_defect(name, options.seed) for name in names]
    return int(not (is_sound and all(found)))


if __name__ == "__main__":
    raise SystemExit(main())
