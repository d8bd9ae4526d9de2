"""`Prefer: code=` and `Prefer: example=` select every documented response and example of a mock."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from handlers.app import Application, create_app
from handlers.pipeline.admission.limits import Limit
from studio.infrastructure.settings import Settings
from tests.contract.operations import BASE, CONTRACT, OPERATIONS, Operation, resolve
from tests.support.app import SwitchedDatabase
from tests.support.client import ClientResponse, send_request
from tests.support.rejections import Rejections

Mock = Application
PUBLIC_URL = "https://mock.example.com"


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mock]:
    """Yield a mock without a database: selected examples need none."""
    folder = tmp_path_factory.mktemp("mock")
    settings = Settings(
        mode="mock",
        data_dir=folder,
        media_dir=folder,
        render_workers=0,
        webhook_senders=0,
        public_url=PUBLIC_URL,
    )
    app = create_app(settings, database=SwitchedDatabase())
    yield app
    app.bridge.pool.shutdown()


def request_example(mock: Mock, operation: Operation, prefer: str, **headers: str) -> ClientResponse:
    path = BASE + operation.path
    for name in operation.path_names():
        path = path.replace(f"{{{name}}}", "anything")
    return send_request(mock, operation.method, path, {"prefer": prefer, **headers})


def expected_body(example: Any, response: ClientResponse) -> Any:
    """Return an example with the mock's own URL, and as a problem with the values of this response."""
    value = json.loads(json.dumps(example).replace("http://localhost:8000", PUBLIC_URL))
    if response.headers["content-type"] == "application/problem+json":
        value["request_id"] = response.headers["x-request-id"]
        if value["code"] == "rate_limited":
            value |= {key: response.json()[key] for key in ("detail", "policy")}
    return value


def test_every_status_of_every_operation_can_be_selected(mock: Mock) -> None:
    missed = []
    for operation in OPERATIONS.values():
        for status in operation.statuses:
            response = request_example(mock, operation, f"code={status}")
            # Response validation turns an example that breaks its schema into a 500.
            if (response.status, response.headers.get("preference-applied")) != (status, f"code={status}"):
                missed.append((operation.operation_id, status, response.status))
    assert len(OPERATIONS) > 160
    assert missed == []


def test_every_named_example_can_be_selected(mock: Mock) -> None:
    selected = 0
    for operation in OPERATIONS.values():
        for status, documented in operation.raw["responses"].items():
            for content in resolve(documented).get("content", {}).values():
                for name, example in content.get("examples", {}).items():
                    response = request_example(mock, operation, f'code={status}; foo, example="{name}"')
                    assert response.status == int(status)
                    assert response.headers["preference-applied"] == f"code={status}, example={name}"
                    assert response.json() == expected_body(resolve(example)["value"], response)
                    selected += 1
    assert selected > 400


@pytest.mark.parametrize(
    ("name", "status", "member"),
    [("failed", 200, ("status", "failed")), ("invalid_token", 401, ("code", "invalid_token"))],
)
def test_a_name_alone_selects_its_status(mock: Mock, name: str, status: int, member: tuple[str, str]) -> None:
    response = request_example(mock, OPERATIONS["get_generation"], f"example={name}")
    assert response.status == status
    assert response.json()[member[0]] == member[1]


def test_a_response_without_named_examples_is_the_example_of_its_schema(mock: Mock) -> None:
    schema = CONTRACT["components"]["schemas"]["Brand"]
    response = request_example(mock, OPERATIONS["get_brand"], "code=200")
    brand = expected_body(schema["example"], response)
    assert response.json() == brand
    assert request_example(mock, OPERATIONS["list_brands"], "code=200").json()["data"] == [brand]


@pytest.mark.parametrize(
    ("prefer", "detail"),
    [
        ("code=418", "get_generation has no response 418. It has 200, 304, 400, 401, 403, 404,"),
        ("example=nothing", "get_generation has no example `nothing`. It has "),
        (
            "code=404, example=failed",
            "The response 404 of get_generation has no example `failed`. It has none",
        ),
    ],
)
def test_an_unknown_code_or_example_is_a_problem_that_lists_the_known_ones(
    mock: Mock, prefer: str, detail: str
) -> None:
    response = request_example(mock, OPERATIONS["get_generation"], prefer)
    assert (response.status, response.json()["code"]) == (400, "unknown_preference")
    assert response.json()["detail"].startswith(detail)
    assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("prefer", ["code=", "wait=1", "example", "respond-async"])
def test_a_malformed_or_other_preference_is_ignored(mock: Mock, prefer: str) -> None:
    response = request_example(mock, OPERATIONS["get_generation"], prefer)
    assert (response.status, response.json()["code"]) == (401, "not_authenticated")
    assert "preference-applied" not in response.headers


def test_a_selected_response_names_the_url_of_the_mock(mock: Mock) -> None:
    brand = request_example(mock, OPERATIONS["get_brand"], "code=200").json()
    assert brand["logo_url"].startswith(f"{PUBLIC_URL}/api/v1/files/")
    problem = request_example(mock, OPERATIONS["get_brand"], "code=404").json()
    assert problem["type"] == f"{PUBLIC_URL}/api/v1/problems/not_found"


def test_the_parts_of_the_429_of_the_contract_agree() -> None:
    response = resolve(OPERATIONS["list_brands"].raw["responses"]["429"])
    headers = {name: resolve(header)["schema"]["example"] for name, header in response["headers"].items()}
    content = response["content"]["application/problem+json"]
    problem = resolve(content["examples"]["rate_limited"])["value"]
    seconds, policy = headers["Retry-After"], problem["policy"]
    assert headers["RateLimit"] == f'"{policy}";r=0;t={seconds}'
    assert headers["RateLimit-Policy"].startswith(f'"{policy}";')
    assert problem["detail"].endswith(f" {seconds} seconds")


@pytest.mark.parametrize(
    ("operation_id", "policy", "quota"), [("list_brands", "account", 1200), ("login", "address", 600)]
)
def test_the_parts_of_a_selected_429_agree(mock: Mock, operation_id: str, policy: str, quota: int) -> None:
    response = request_example(mock, OPERATIONS[operation_id], "code=429")
    seconds = response.headers["retry-after"]
    assert response.json()["detail"] == f"Too many requests; try again in {seconds} seconds"
    assert (response.json()["policy"], response.json()["code"]) == (policy, "rate_limited")
    assert response.headers["ratelimit"] == f'"{policy}";r=0;t={seconds}'
    assert response.headers["ratelimit-policy"] == f'"{policy}";q={quota};w=60'


def test_a_scenario_needs_no_change_of_the_client(mock: Mock, rejections: Rejections) -> None:
    scenario = {"responses": [{"operation": "list_brands", "status": 503, "retry_after": 7, "times": 2}]}
    assert send_request(mock, "PUT", "/mock/scenario", as_json=scenario).status == 200
    responses = [send_request(mock, "GET", f"{BASE}/brands/") for _ in range(3)]
    assert [response.status for response in responses] == [503, 503, 401]
    assert [response.headers.get("retry-after") for response in responses] == ["7", "7", None]
    assert rejections.take() == {(503, "unavailable", Limit.MOCK), (401, "not_authenticated", None)}
    used = send_request(mock, "GET", "/mock/scenario").json()["responses"][0]["used"]
    assert send_request(mock, "POST", "/mock/reset").status == 204
    assert (used, send_request(mock, "GET", "/mock/scenario").json()["responses"]) == (2, [])


@pytest.mark.parametrize("media_type", ["image/webp", "image/jpeg", "image/png", "image/avif"])
def test_a_selected_image_opens(mock: Mock, media_type: str) -> None:
    operation = OPERATIONS["get_prediction_image"]
    response = request_example(mock, operation, "code=200", accept=f"text/html, {media_type};q=0.9")
    assert response.headers["content-type"] == media_type
    with Image.open(io.BytesIO(response.body)) as image:
        assert Image.MIME[str(image.format)] == media_type


def test_a_selected_archive_and_stream_are_valid(mock: Mock) -> None:
    archive = request_example(mock, OPERATIONS["download_export"], "code=200")
    assert zipfile.ZipFile(io.BytesIO(archive.body)).namelist() == ["manifest.json"]
    event = request_example(mock, OPERATIONS["stream_generation_events"], "code=200")
    lines = dict(line.split(": ", 1) for line in event.body.decode().splitlines() if line)
    assert lines["event"] == "progress"
    assert json.loads(lines["data"])["status"] == "running"


def test_a_live_server_has_neither_selection_nor_scenario_nor_control(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("responses: [{operation: get_generation, status: 503}]")
    settings = Settings(data_dir=tmp_path, media_dir=tmp_path, mock_scenario=scenario)
    live = create_app(settings, database=SwitchedDatabase())
    response = request_example(live, OPERATIONS["get_generation"], "code=200")
    controls = [
        send_request(live, method, path, as_json={})
        for method, path in [("POST", "/mock/reset"), ("GET", "/mock/scenario"), ("PUT", "/mock/scenario")]
    ]
    live.bridge.pool.shutdown()
    assert response.status == 401
    assert "preference-applied" not in response.headers
    assert [control.status for control in controls] == [404, 404, 404]
