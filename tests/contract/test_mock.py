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
from studio.settings import Settings
from tests.contract.operations import BASE, CONTRACT, OPERATIONS, Operation, resolve
from tests.support.app import SwitchedDatabase, create_test_app
from tests.support.client import ClientResponse, send_request

Mock = Application


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mock]:
    """Yield a mock without a database: selected examples need none."""
    folder = tmp_path_factory.mktemp("mock")
    settings = Settings(mode="mock", data_dir=folder, media_dir=folder, render_workers=0, webhook_senders=0)
    app = create_app(settings, database=SwitchedDatabase())
    yield app
    app.bridge.pool.shutdown()


def request_example(mock: Mock, operation: Operation, prefer: str, **headers: str) -> ClientResponse:
    path = BASE + operation.path
    for name in operation.path_names():
        path = path.replace(f"{{{name}}}", "anything")
    return send_request(mock, operation.method, path, {"prefer": prefer, **headers})


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
                    assert response.json() == resolve(example)["value"]
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
    schemas: dict[str, Any] = CONTRACT["components"]["schemas"]
    assert request_example(mock, OPERATIONS["get_brand"], "code=200").json() == schemas["Brand"]["example"]
    assert request_example(mock, OPERATIONS["list_brands"], "code=200").json()["data"] == [
        schemas["Brand"]["example"]
    ]


@pytest.mark.parametrize(
    "prefer", ["code=418", "example=nothing", "code=404, example=failed", "code=", "wait=1"]
)
def test_an_unknown_preference_is_ignored(mock: Mock, prefer: str) -> None:
    response = request_example(mock, OPERATIONS["get_generation"], prefer)
    assert (response.status, response.json()["code"]) == (401, "not_authenticated")
    assert "preference-applied" not in response.headers


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


def test_nothing_can_be_selected_outside_of_a_mock(tmp_path: Path) -> None:
    live = create_test_app(tmp_path)
    response = request_example(live, OPERATIONS["get_generation"], "code=200")
    live.bridge.pool.shutdown()
    assert response.status == 401
    assert "preference-applied" not in response.headers
