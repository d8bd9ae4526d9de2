"""Tests of the conformance kit as installed by its users, against a running server."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.server import ROOT, RunningServer, running_server
from tests.support.servers.http_recorder import RecordedRequest, StubResponse, run_http_recorder

pytestmark = pytest.mark.slow("it installs the kit into an environment of its own")

JSON = {"Content-Type": "application/json"}
CONTRACT = (ROOT / "openapi" / "openapi.json").read_bytes()


class KitRun(NamedTuple):
    """The result of a run of the kit."""

    status: int
    printed: str
    passed: set[tuple[str, str]]
    failed: dict[tuple[str, str], str]
    page: str


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the command in a virtual environment with only the kit's dependencies."""
    folder = tmp_path_factory.mktemp("kit")
    shutil.copytree(ROOT / "tests" / "tools" / "conformance", folder / "source")
    venv.create(folder / "environment", with_pip=True)
    pip = [str(folder / "environment/bin/python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", str(folder / "source")], check=True)
    return folder / "environment" / "bin" / "sartiq-conformance"


def run_kit(kit: Path, url: str, token: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the kit with the token in the environment, where other users of the machine cannot read it."""
    environment = os.environ | {"SARTIQ_TOKEN": token}
    command = [str(kit), "--base-url", url, *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def run_kit_with_reports(kit: Path, url: str, token: str, folder: Path) -> KitRun:
    """Run the kit with a small budget and read its reports."""
    junit, page = folder / "junit.xml", folder / "report.html"
    reports = ("--junit", str(junit), "--html", str(page))
    outcome = run_kit(kit, url, token, "--examples", "1", "--seed", "2041", *reports)
    printed = outcome.stdout + outcome.stderr
    assert junit.exists(), printed
    cases = {
        (case.attrib["classname"], case.attrib["name"]): case.find("failure")
        for case in ElementTree.parse(junit).iter("testcase")
    }
    failed = {key: str(failure.text) for key, failure in cases.items() if failure is not None}
    return KitRun(outcome.returncode, printed, set(cases) - set(failed), failed, page.read_text())


def get_token(server: RunningServer) -> str:
    """Return an access token of the demo account."""
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        return str(api.client.headers["Authorization"]).removeprefix("Bearer ")


def test_the_server_conforms_and_only_the_rows_of_the_kit_change(
    kit: Path, demo_server: RunningServer, tmp_path: Path
) -> None:
    with Api(demo_server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        before = {row["id"]: row for row in api.get("/organizations/")["data"]}
        verdict = run_kit_with_reports(kit, demo_server.url, get_token(demo_server), tmp_path)
        after = {row["id"]: row for row in api.get("/organizations/")["data"]}
    assert (verdict.status, verdict.failed) == (0, {}), verdict.printed
    assert {part for part, _name in verdict.passed} == {"flow", "errors", "authentication", "fuzzing"}
    assert len(verdict.passed) > 200
    assert [row["name"] for row in after.values() if row["id"] not in before] == ["Conformance run 2041"]
    assert {row_id: after[row_id] for row_id in before} == before
    assert "One organization is created" in verdict.printed
    assert "0 failed" in verdict.page


@pytest.mark.parametrize(
    ("defect", "seen_by", "check"),
    [
        ("approval_without_effect", "flow", "from a brand to an approved image"),
        ("problem_without_request_id", "errors", "an unknown method"),
        ("anonymous_deletion", "authentication", "DELETE /brands/{brand_id}"),
        ("undocumented_status", "fuzzing", "GET /brands/"),
    ],
)
def test_each_part_finds_a_defect_that_no_other_part_finds(
    kit: Path, tmp_path: Path, defect: str, seen_by: str, check: str
) -> None:
    module = f"tests.contract.seeded_defects {defect}"
    with running_server(tmp_path / "server", module, SARTIQ_ENV="development", SARTIQ_MODE="mock") as server:
        verdict = run_kit_with_reports(kit, server.url, get_token(server), tmp_path)
    assert (verdict.status, set(verdict.failed)) == (1, {(seen_by, check)}), verdict.printed
    assert f"FAILED {seen_by}: {check}\n" in verdict.printed
    assert verdict.printed.endswith(" checks, 1 failed: the server does not conform.\n")
    assert f"<h2>{seen_by}: {check}</h2>" in verdict.page
    assert "1 failed: the server does not conform." in verdict.page


def test_a_server_with_malformed_responses_does_not_conform(kit: Path, tmp_path: Path) -> None:
    def respond(request: RecordedRequest) -> StubResponse:
        if request.path == "/api/v1/openapi.json":
            return StubResponse(body=CONTRACT, headers=JSON)
        if request.path == "/api/v1/organizations/" and request.method == "POST":
            return StubResponse(201, b'{"id": "no uuid"}', JSON)
        return StubResponse(200, b"[\x00\x0b}", {"Content-Type": "application/problem+json"})

    with run_http_recorder(respond) as server:
        verdict = run_kit_with_reports(kit, f"{server.url}/api/v1", "anything", tmp_path)
    assert verdict.status == 1, verdict.printed
    assert "is a required property" in verdict.failed["flow", "an organization"]
    assert "200, not 201" in verdict.failed["flow", "from a brand to an approved image"]
    assert "not a JSON object" in verdict.failed["errors", "an unknown path"]
    assert "Traceback" not in verdict.printed


@pytest.mark.parametrize(
    ("response", "expected_message"),
    [
        (None, "Connection refused"),
        (StubResponse(404), "404 Not Found"),
        (StubResponse(body=b"<!doctype html>"), "is not a contract: JSONDecodeError"),
        (StubResponse(body=b'{"swagger": "?"}', headers=JSON), "is not a contract: "),
        (StubResponse(body=CONTRACT, headers=JSON), "POST /organizations/: 200, not 201"),
    ],
    ids=["unreachable", "no contract at the URL", "HTML", "not OpenAPI", "no organization"],
)
def test_a_server_that_cannot_be_tested_has_its_own_exit_status(
    kit: Path, response: StubResponse | None, expected_message: str
) -> None:
    with run_http_recorder(lambda _request: response or StubResponse()) as server:
        url = f"{server.url if response else 'http://127.0.0.1:9'}/api/v1"
        outcome = run_kit(kit, url, "anything")
    assert outcome.returncode == 2, outcome.stdout + outcome.stderr
    assert "The server cannot be reached or used: " in outcome.stdout
    assert expected_message in outcome.stdout


def test_the_help_lists_the_options_and_exit_statuses(kit: Path) -> None:
    help_text = subprocess.run([str(kit), "--help"], capture_output=True, text=True, check=True).stdout
    assert "--base-url URL" in help_text
    assert "0  the server conforms" in help_text
    without_token = {key: text for key, text in os.environ.items() if key != "SARTIQ_TOKEN"}
    rejected = subprocess.run(
        [str(kit), "--base-url", "x"], env=without_token, capture_output=True, text=True
    )
    assert (rejected.returncode, rejected.stdout) == (2, "")
    assert "the following arguments are required: --token" in rejected.stderr
