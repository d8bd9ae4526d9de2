"""`make contract-selftest`: seed eight defects one by one and check that the contract run finds each.

The same run must pass on the server without a defect, so that the finding is the defect.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from tests.contract import run
from tests.contract.seeded_defects import AUTHENTICATION_DEFECTS, DEFECTS

SEED = 2041
# Defect -> the operations of its run, and the code of the check that must find it. Response validation turns
# some defects into a 500, which is found as a server error. Other defects are for the conformance kit.
RUNS = {
    "tenant_leak": (["create_brand", "list_brands", "get_brand"], "ST402"),
    "public_operation": (["create_brand", "list_brands", "get_brand"], "ST901"),
    "deletion_without_effect": (["create_brand", "get_brand", "delete_brand"], "ST301"),
    # Only the stateful phase reads a brand, deletes it and reads it again.
    "stale_read": (["create_brand", "get_brand", "delete_brand"], "ST301"),
    "creation_dropping_a_field": (["create_brand"], "ST101"),
    "undocumented_status": (["create_brand", "get_brand"], "ST101"),
    "valid_data_rejected": (["create_brand"], "ST202"),
    "missing_header": (["create_brand"], "ST101"),
}
EVERY_OPERATION = sorted({name for names, _ in RUNS.values() for name in names})


def run_contract(server: str, operations: list[str]) -> tuple[bool, str]:
    """Fuzz some operations of a server; return whether the run passed, and its report."""
    command = [sys.executable, "-m", "tests.contract.run", "--database", "sqlite", "--seed", str(SEED)]
    command += ["--examples", "20", "--server", server]
    for name in operations:
        command += ["--operation", name]
    completed = subprocess.run(command, cwd=run.ROOT, capture_output=True, text=True, check=False)
    return completed.returncode == 0, completed.stdout + completed.stderr


def main(arguments: list[str] | None = None) -> int:
    """Try every defect; return 0 if all are found and the unchanged server passes."""
    parser = argparse.ArgumentParser(prog="make contract-selftest ARGS=...", description=__doc__)
    parser.add_argument("--defect", choices=sorted(RUNS), help="seed only this defect")
    options = parser.parse_args(arguments)
    names = [options.defect] if options.defect else list(RUNS)
    is_sound, report = run_contract("handlers", EVERY_OPERATION)
    print(f"{'passed' if is_sound else 'FAILED':10}the unchanged server", flush=True)
    if not is_sound:
        print(report)
    missed = 0
    for name in names:
        operations, code = RUNS[name]
        has_passed, report = run_contract(f"tests.contract.seeded_defects {name}", operations)
        found = not has_passed and code in report
        missed += not found
        if not found:
            print(report)
        print(
            f"{'found' if found else 'MISSED':10}{name}: {(AUTHENTICATION_DEFECTS | DEFECTS)[name].__doc__}",
            flush=True,
        )
    return int(missed > 0 or not is_sound)


if __name__ == "__main__":
    raise SystemExit(main())
