"""Run each workflow of `openapi/workflows/studio.arazzo.yaml` against a server, with Redocly Respect."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.test_third_party_validators import RESPECT
from tools.demo import EMAIL, PASSWORD
from tools.servers.http_recorder import HttpRecorder, run_http_recorder
from tools.servers.server import ROOT, RunningServer, running_server

FILE = ROOT / "openapi" / "workflows" / "studio.arazzo.yaml"
WORKFLOWS = [each["workflowId"] for each in yaml.safe_load(FILE.read_text(encoding="utf-8"))["workflows"]]
FAST = "usage_of_the_month"


@pytest.fixture(scope="module")
def destination() -> Iterator[HttpRecorder]:
    """Yield a server that accepts the files of exports."""
    with run_http_recorder() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, destination: HttpRecorder) -> Iterator[RunningServer]:
    """Yield a server with the demo data that may send files to the destination."""
    settings = {"SARTIQ_ENV": "development", "OUTBOUND_ALLOWED_HOSTS": destination.host}
    with running_server(tmp_path_factory.mktemp("workflows"), **settings) as server:
        yield server


def run_workflows(server: RunningServer, destination_url: str, folder: Path, *names: str) -> Any:
    """Run workflows with an access token of the demo account; return the report."""
    form = {"username": EMAIL, "password": PASSWORD}
    token = httpx.post(f"{server.url}/login/access-token", data=form, timeout=60).json()["access_token"]
    inputs = {"authorization": f"Bearer {token}", "url": destination_url}
    report = folder / "report.json"
    outcome = subprocess.run(
        [
            *RESPECT, FILE.name, "--server", f"sartiq={server.url}", "--input", json.dumps(inputs),
            "--json-output", str(report), *(f"--workflow={name}" for name in names),
        ],
        cwd=FILE.parent, env={**os.environ, "REDOCLY_TELEMETRY": "off"}, capture_output=True, text=True,
    )  # fmt: skip
    assert report.exists(), outcome.stdout + outcome.stderr
    assert outcome.returncode == 0, outcome.stdout[-8000:]
    return json.loads(report.read_text(encoding="utf-8"))["files"][FILE.name]


@pytest.mark.slow("it starts a server and Redocly Respect; tests of the API cover the operations")
def test_a_published_workflow_runs(demo_server: RunningServer, tmp_path: Path) -> None:
    assert run_workflows(demo_server, "https://uploads.example.com", tmp_path, FAST)["totalRequests"] == 1


@pytest.mark.slow("it starts a server and Redocly Respect; tests of the API cover the operations")
def test_every_published_workflow_runs(
    server: RunningServer, destination: HttpRecorder, tmp_path: Path
) -> None:
    others = [name for name in WORKFLOWS if name != FAST]
    report = run_workflows(server, f"{destination.url}/files", tmp_path, *others)
    assert {each["workflowId"] for each in report["executedWorkflows"]} == set(others)
    assert any(request.method == "PUT" for request in destination.requests)
