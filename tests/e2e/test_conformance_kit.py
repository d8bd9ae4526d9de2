"""Tests of the conformance kit as installed by its users, against a running server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import uuid
import venv
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import httpx
import pytest

from tests.e2e.test_mock import ORGANIZATION
from tests.support.servers.defective_proxy import (
    FOREIGN_ORGANIZATION,
    Forward,
    Request,
    Response,
    extra_property,
    if_match_ignored,
    list_defects,
    run_defective_proxy,
)
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.http_recorder import RecordedRequest, StubResponse, run_http_recorder
from tools.servers.server import BASE_PATH, ROOT, RunningServer, running_server

pytestmark = pytest.mark.slow("it installs the kit into an environment of its own")

PARTS = {"flow", "errors", "authentication", "behaviour", "fuzzing"}
JSON = {"content-type": "application/json"}
CONTRACT = (ROOT / "openapi" / "openapi.json").read_bytes()


class KitRun(NamedTuple):
    """The result of a run of the kit."""

    status: int
    printed: str
    passed: set[tuple[str, str]]
    failed: dict[tuple[str, str], str]
    page: str
    report: dict[str, Any]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the command in a virtual environment with only the kit's dependencies."""
    folder = tmp_path_factory.mktemp("kit")
    shutil.copytree(ROOT / "tools" / "conformance", folder / "source")
    venv.create(folder / "environment", with_pip=True)
    pip = [str(folder / "environment/bin/python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", str(folder / "source")], check=True)
    return folder / "environment" / "bin" / "sartiq-conformance"


def run_kit(
    kit: Path, url: str, token: str, *options: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the kit with the token in the environment, where other users of the machine cannot read it."""
    environment = os.environ | {"SARTIQ_TOKEN": token}
    command = [str(kit), "--base-url", url, *options]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)


def run_kit_with_reports(kit: Path, url: str, token: str, folder: Path, *options: str) -> KitRun:
    """Run the kit with a small budget in a folder of its own and read its reports."""
    folder.mkdir(exist_ok=True)
    reports = ("--junit", "junit.xml", "--html", "report.html", "--json", "report.json")
    outcome = run_kit(kit, url, token, "--examples", "1", "--seed", "2041", *reports, *options, cwd=folder)
    printed = outcome.stdout + outcome.stderr
    assert {path.name for path in folder.iterdir()} == set(reports[1::2]), printed
    cases = {
        (case.attrib["classname"], case.attrib["name"]): case.find("failure")
        for case in ElementTree.parse(folder / "junit.xml").iter("testcase")
    }
    failed = {key: str(failure.text) for key, failure in cases.items() if failure is not None}
    page = (folder / "report.html").read_text()
    report = json.loads((folder / "report.json").read_text())
    return KitRun(outcome.returncode, printed, set(cases) - set(failed), failed, page, report)


class Sections(HTMLParser):
    """Records how deep the sections of a page are nested, and which elements stay open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.depths: list[int] = []
        self.feed(page)

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        if tag not in ("meta", "html"):
            self.open.append(tag)
        if tag == "section":
            self.depths.append(self.open.count("section"))

    def handle_endtag(self, tag: str) -> None:
        if tag != "html":
            assert self.open.pop() == tag


def get_token(server: RunningServer) -> str:
    """Return an access token of the demo account."""
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        return str(api.client.headers["Authorization"]).removeprefix("Bearer ")


def read_rows(api: Api) -> dict[str, Any]:
    """Return the organizations and personal brands of the demo account."""
    return {row["id"]: row for path in ("/organizations/", "/brands/") for row in api.get(path)["data"]}


def test_the_server_conforms_and_the_kit_leaves_no_row_behind(
    kit: Path, demo_server: RunningServer, tmp_path: Path
) -> None:
    with Api(demo_server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        before = read_rows(api)
        verdict = run_kit_with_reports(kit, demo_server.url, get_token(demo_server), tmp_path / "run")
        after = read_rows(api)
    assert (verdict.status, verdict.failed) == (0, {}), verdict.printed
    assert {part for part, _name in verdict.passed} == PARTS
    assert len(verdict.passed) > 500
    assert after == before
    assert "Left behind" not in verdict.printed
    assert "Rows are created in a new organization" in verdict.printed
    assert re.search(r"^behaviour: \d+ checks, 0 failed, [0-9.]+ s$", verdict.printed, re.MULTILINE)
    for text in (
        "0 failed",
        "<dt>Started</dt>",
        "<dt>Server</dt><dd>version 0.",
        "seed 2041",
        "<td>fuzzing</td>",
    ):
        assert text in verdict.page
    assert Sections(verdict.page).open == []
    report = verdict.report
    assert (report["format"], report["status"], report["stopped"]) == (1, 0, None)
    assert (report["seed"], report["examples"], report["left_behind"]) == (2041, 1, [])
    assert report["server"]["url"] == demo_server.url
    assert report["counts"] == {"passed": len(report["checks"]), "failed": 0, "error": 0}
    assert {(check["part"], check["name"]) for check in report["checks"]} == verdict.passed
    suites = list(ElementTree.parse(tmp_path / "run" / "junit.xml").iter("testsuite"))
    for suite in suites:
        properties = {one.attrib["name"]: one.attrib["value"] for one in suite.iter("property")}
        assert (properties["seed"], properties["server"]) == ("2041", demo_server.url)
        assert float(suite.attrib["time"]) >= 0
    assert sum(int(suite.attrib["tests"]) for suite in suites) == len(report["checks"])


@pytest.mark.parametrize(
    ("defect", "part", "check"),
    [
        ("approval_without_effect", "flow", "from a brand to an approved image"),
        ("problem_without_request_id", "errors", "an unknown method"),
        ("anonymous_deletion", "authentication", "DELETE /brands/{brand_id}"),
        ("stale_read", "behaviour", "DELETE /brands/{brand_id}: the row is gone"),
        ("undocumented_status", "fuzzing", "GET /brands/"),
    ],
)
def test_each_part_finds_a_defect_when_it_runs_alone(
    kit: Path, tmp_path: Path, defect: str, part: str, check: str
) -> None:
    module = f"tests.contract.seeded_defects {defect}"
    with running_server(tmp_path / "server", module, SARTIQ_ENV="development", SARTIQ_MODE="mock") as server:
        verdict = run_kit_with_reports(kit, server.url, get_token(server), tmp_path / "run", "--only", part)
    assert (verdict.status, set(verdict.failed)) == (1, {(part, check)}), verdict.printed
    assert {name for name, _check in verdict.passed} <= {part}
    assert f"FAILED {part}: {check}\n" in verdict.printed
    assert verdict.printed.endswith(" checks, 1 failed: the server does not conform.\n")
    assert f"<h2>{part}: {check}</h2>" in verdict.page
    (found,) = (one for one in verdict.report["checks"] if one["outcome"] != "passed")
    assert (found["part"], found["name"], found["outcome"]) == (part, check, "failed")
    assert found["problem"] == verdict.failed[part, check]
    assert (verdict.report["status"], verdict.report["counts"]["failed"]) == (1, 1)
    assert "1 failed: the server does not conform." in verdict.page


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a sound server that the tests below put defects in front of."""
    folder = tmp_path_factory.mktemp("mock")
    with running_server(folder, SARTIQ_ENV="development", SARTIQ_MODE="mock") as server:
        yield server


# The check that finds each defect of `defective_proxy`, and what it says.
FOUND_BY = {
    "field_missing_in_a_list": ("behaviour", "GET /generation-models/: pages", '"provider" is a required'),
    "field_missing_in_a_row": ("flow", "from a brand to an approved image", "phase was "),
    "type_changed": ("behaviour", "GET /organizations/: pages", 'is not of type "integer"'),
    "header_missing": ("behaviour", "PATCH /brands/{brand_id}: If-Match", "etag"),
    "wrong_content_type": ("fuzzing", "GET /utils/version", "Undocumented Content-Type"),
    "extra_property": ("fuzzing", "GET /users/me", "hashed_password"),
    "open_deletion": ("authentication", "DELETE /brands/{brand_id}", "204, not 401"),
    "challenge_missing": ("authentication", "GET /exports/{export_id}", "www-authenticate"),
    "failure_on_non_ascii": ("behaviour", "GET /search/: q at its limits", "500, not 200"),
    "undeclared_status_at_a_boundary": ("behaviour", "GET /exports/: limit at its limits", "418, not 200"),
    "foreign_row_in_a_list": ("behaviour", "GET /brands/: rows of the organization", FOREIGN_ORGANIZATION),
    "RowForAnyId": ("behaviour", "GET /shot-types/{shot_type_id}: an unknown id", "200, not 403 or 404"),
    "if_match_ignored": ("behaviour", "PATCH /products/{product_id}: If-Match", "200, not 412"),
    "idempotency_key_ignored": ("behaviour", "POST /subjects/: Idempotency-Key", "request made row"),
    "limit_ignored": ("behaviour", "GET /background-presets/: pages", "limit=1 returns"),
    "filter_ignored": ("behaviour", "GET /products/: brand_id", "returns rows, but matches none"),
    "unknown_property_accepted": ("behaviour", "POST /styles/: an unknown property", "201, not 422"),
    "deletion_without_effect": (
        "behaviour", "DELETE /resolution-presets/{resolution_preset_id}: the row is gone", "200, not 404",
    ),
}  # fmt: skip


def test_eighteen_seeded_defects_are_found_in_one_run(kit: Path, mock: RunningServer, tmp_path: Path) -> None:
    defects = list_defects()
    assert sorted(getattr(one, "__name__", type(one).__name__) for one in defects) == sorted(FOUND_BY)
    with run_defective_proxy(mock.origin, BASE_PATH, defects) as url:
        verdict = run_kit_with_reports(kit, url, get_token(mock), tmp_path / "run")
    missed = {
        defect: verdict.failed.get((part, check), "passed")
        for defect, (part, check, text) in FOUND_BY.items()
        if text.lower() not in verdict.failed.get((part, check), "").lower()
    }
    assert missed == {}
    # Eighteen findings are siblings in the page, not nested in each other.
    assert set(Sections(verdict.page).depths) == {1}


def test_a_finding_can_be_repeated_with_the_printed_command(
    kit: Path, mock: RunningServer, tmp_path: Path
) -> None:
    token = get_token(mock)
    with run_defective_proxy(mock.origin, BASE_PATH, [if_match_ignored]) as url:
        verdict = run_kit_with_reports(kit, url, token, tmp_path / "run", "--only", "behaviour", "--keep")
        (finding,) = verdict.failed.values()
        command = finding.partition("Reproduce with:")[2].strip()
        environment = os.environ | {"SARTIQ_TOKEN": token}
        repeated = subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True, check=True
        )
    assert token not in verdict.printed
    assert repeated.stdout.startswith("HTTP/1.1 200")
    assert "Left behind:\n  /api/v1/organizations/" in verdict.printed


def test_a_contract_of_your_own_finds_what_the_published_one_hides(
    kit: Path, mock: RunningServer, tmp_path: Path
) -> None:
    def drop_season(request: Request, forward: Forward) -> Response | None:
        """Drop a property, in the published contract too."""
        if request.path == "/openapi.json":
            return Response(200, JSON, CONTRACT.replace(b'"season"', b'"old_season"'))
        if request.path.startswith("/shootings/") and request.method in ("GET", "POST", "PATCH"):
            response = forward(request)
            return replace(response, body=response.body.replace(b'"season"', b'"old_season"'))
        return None

    pinned = tmp_path / "pinned.json"
    pinned.write_bytes(CONTRACT)
    options, token = ("--only", "flow"), get_token(mock)
    with run_defective_proxy(mock.origin, BASE_PATH, [drop_season]) as url:
        trusting = run_kit_with_reports(kit, url, token, tmp_path / "one", *options)
        pinning = run_kit_with_reports(kit, url, token, tmp_path / "two", *options, "--contract", str(pinned))
    assert trusting.status == 0, trusting.printed
    assert pinning.status == 1
    assert '"season" is a required property' in pinning.failed["flow", "from a brand to an approved image"]
    assert f"against {pinned}" in pinning.printed


def test_new_properties_are_accepted_on_request_only(kit: Path, mock: RunningServer, tmp_path: Path) -> None:
    # The published schemas of responses are open: the kit closes them.
    assert "additionalProperties" not in json.loads(CONTRACT)["components"]["schemas"]["User"]
    options, token = ("--only", "fuzzing"), get_token(mock)
    with run_defective_proxy(mock.origin, BASE_PATH, [extra_property]) as url:
        closed = run_kit_with_reports(kit, url, token, tmp_path / "one", *options)
        is_open = run_kit_with_reports(
            kit, url, token, tmp_path / "two", *options, "--allow-additional-properties"
        )
    assert set(closed.failed) == {("fuzzing", "GET /users/me")}
    assert is_open.failed == {}


def test_an_existing_organization_keeps_its_own_rows_only(
    kit: Path, mock: RunningServer, tmp_path: Path
) -> None:
    with Api(mock.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        paths = [f"{path}?organization_id={ORGANIZATION}" for path in ("/brands/", "/shots/", "/products/")]
        before = [api.get(path)["data"] for path in paths]
        verdict = run_kit_with_reports(
            kit, mock.url, get_token(mock), tmp_path / "run", "--organization", ORGANIZATION
        )
        after = [api.get(path)["data"] for path in paths]
    assert (verdict.status, verdict.failed) == (0, {}), verdict.printed
    assert after == before
    unknown = run_kit(kit, mock.url, get_token(mock), "--organization", str(uuid.uuid4()))
    assert (unknown.returncode, "404, not 200" in unknown.stdout) == (2, True)


def test_a_server_with_malformed_responses_does_not_conform(kit: Path, tmp_path: Path) -> None:
    def respond(request: RecordedRequest) -> StubResponse:
        if request.path == "/api/v1/openapi.json":
            return StubResponse(body=CONTRACT, headers=JSON)
        if request.path == "/api/v1/organizations/" and request.method == "POST":
            return StubResponse(201, b'{"id": "no uuid"}', JSON)
        return StubResponse(200, b"[\x00\x0b}", {"Content-Type": "application/problem+json"})

    with run_http_recorder(respond) as server:
        verdict = run_kit_with_reports(kit, f"{server.url}/api/v1", "anything", tmp_path / "run")
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
        (StubResponse(body=CONTRACT, headers=JSON), "POST /api/v1/organizations/: 200, not 201"),
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


def test_an_account_without_credits_is_not_a_finding(kit: Path, mock: RunningServer, tmp_path: Path) -> None:
    def reject(request: Request, _forward: Forward) -> Response | None:
        if request.path.endswith("/generate"):
            problem = {"code": "out_of_credits", "status": 409}
            return Response(409, {"content-type": "application/problem+json"}, json.dumps(problem).encode())
        return None

    with Api(mock.origin) as api, run_defective_proxy(mock.origin, BASE_PATH, [reject]) as url:
        api.sign_in(EMAIL, PASSWORD)
        before = read_rows(api)
        outcome = run_kit(
            kit, url, get_token(mock), "--only", "flow", "--json", str(tmp_path / "report.json")
        )
        assert read_rows(api) == before
        skipped = run_kit(kit, url, get_token(mock), *(f"--skip={part}" for part in PARTS - {"errors"}))
    assert outcome.returncode == 2, outcome.stdout
    assert "has no credits for one prediction" in outcome.stdout
    assert "--skip flow" in outcome.stdout
    assert list(tmp_path.iterdir()) == []
    assert (skipped.returncode, "costs credits" in skipped.stdout) == (0, False), skipped.stdout


def test_a_member_without_the_permission_is_not_a_finding(kit: Path, mock: RunningServer) -> None:
    def reject(request: Request, _forward: Forward) -> Response | None:
        if request.method == "POST" and request.path.endswith("/brands/"):
            problem = {"code": "not_enough_permissions", "status": 403}
            return Response(403, {"content-type": "application/problem+json"}, json.dumps(problem).encode())
        return None

    with run_defective_proxy(mock.origin, BASE_PATH, [reject]) as url:
        outcome = run_kit(kit, url, get_token(mock), "--only", "flow", "--organization", ORGANIZATION)
    assert outcome.returncode == 2, outcome.stdout
    assert "POST /brands/: 403. The account of the token must be an owner or admin" in outcome.stdout


def test_a_url_with_a_password_is_rejected_and_not_printed(kit: Path) -> None:
    outcome = run_kit(kit, "http://user:hidden@127.0.0.1:9/api/v1", "anything")
    assert outcome.returncode == 2
    assert "must have no user, password, query or fragment" in outcome.stderr
    assert "hidden" not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_canceled_run_deletes_its_rows_and_reports_what_it_checked(
    kit: Path, mock: RunningServer, tmp_path: Path, number: signal.Signals
) -> None:
    report = tmp_path / "report.json"
    environment = os.environ | {"SARTIQ_TOKEN": get_token(mock)}
    command = [
        str(kit),
        "--base-url",
        mock.url,
        "--only",
        "errors",
        "--only",
        "fuzzing",
        "--json",
        str(report),
    ]
    with Api(mock.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        before = read_rows(api)
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            printed = ""
            while "errors: 9 checks" not in printed:
                printed += process.stdout.readline()
            # Twice, like `timeout` and runners that signal the process and its group.
            process.send_signal(number)
            process.send_signal(number)
            printed += process.stdout.read()
        after = read_rows(api)
    assert process.returncode == 128 + number, printed
    assert "Traceback" not in printed
    assert f"stopped by {number.name}: the server conforms, as far as it was checked." in printed
    assert after == before
    written = json.loads(report.read_text())
    assert (written["status"], written["stopped"]) == (128 + number, f"stopped by {number.name}")
    assert written["counts"]["passed"] >= 9


def test_a_server_that_disappears_ends_the_run(kit: Path, mock: RunningServer, tmp_path: Path) -> None:
    gone = threading.Event()

    def disappear(request: Request, _forward: Forward) -> Response | None:
        if request.path == "/subjects/":
            gone.set()
        if gone.is_set():
            raise ConnectionAbortedError
        return None

    with run_defective_proxy(mock.origin, BASE_PATH, [disappear]) as url:
        verdict = run_kit_with_reports(kit, url, get_token(mock), tmp_path / "run", "--only", "behaviour")
    assert verdict.status == 1, verdict.printed
    assert verdict.report["counts"]["failed"] == 5
    assert "stopped because the server could no longer be reached" in verdict.printed


def test_a_mock_with_a_scenario_is_announced(kit: Path, mock: RunningServer) -> None:
    warning = f"curl -X POST {mock.origin}/mock/reset"
    scenario = b"responses: [{operation: get_user, status: 503, times: 1}]"
    try:
        httpx.put(f"{mock.origin}/mock/scenario", content=scenario).raise_for_status()
        with_scenario = run_kit(kit, mock.url, get_token(mock), "--only", "errors")
    finally:
        httpx.put(f"{mock.origin}/mock/scenario", content=b"{}").raise_for_status()
    without = run_kit(kit, mock.url, get_token(mock), "--only", "errors")
    assert warning in with_scenario.stdout
    assert warning not in without.stdout


@pytest.mark.parametrize("token", ["Bearer {}", "Authorization: Bearer {}", " {}\r\n"])
def test_a_token_can_be_the_header_that_a_mock_prints(kit: Path, mock: RunningServer, token: str) -> None:
    outcome = run_kit(kit, mock.url, token.format(get_token(mock)), "--only", "errors")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_reports_go_to_a_new_folder_or_stop_the_run_at_its_start(
    kit: Path, mock: RunningServer, tmp_path: Path
) -> None:
    token, report = get_token(mock), tmp_path / "new" / "folder" / "junit.xml"
    assert run_kit(kit, mock.url, token, "--only", "errors", "--junit", str(report)).returncode == 0
    assert report.stat().st_size > 0
    rejected = run_kit(kit, mock.url, token, "--junit", str(report / "junit.xml"))
    assert (rejected.returncode, rejected.stdout) == (2, "")
    assert "junit.xml cannot be written: " in rejected.stderr


def test_the_help_lists_the_options_and_exit_statuses(kit: Path) -> None:
    help_text = subprocess.run([str(kit), "--help"], capture_output=True, text=True, check=True).stdout
    assert "--base-url URL" in help_text
    assert "0    the server conforms" in help_text
    for option in ("--contract FILE", "--organization ID", "--only PART", "--keep"):
        assert option in help_text
    without_token = {key: text for key, text in os.environ.items() if key != "SARTIQ_TOKEN"}
    rejected = subprocess.run(
        [str(kit), "--base-url", "http://localhost/api/v1"], env=without_token, capture_output=True, text=True
    )
    assert (rejected.returncode, rejected.stdout) == (2, "")
    assert "the following arguments are required: --token, or the variable SARTIQ_TOKEN" in rejected.stderr
