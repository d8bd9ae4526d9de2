"""`Prefer: code=` and `Prefer: example=` in a mock: every answer that the contract shows can be picked."""

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
    """A mock whose database nobody may touch: what is picked is not looked for."""
    folder = tmp_path_factory.mktemp("mock")
    settings = Settings(mode="mock", data_dir=folder, media_dir=folder, render_workers=0, webhook_senders=0)
    made = create_app(settings, database=SwitchedDatabase())
    yield made
    made.bridge.pool.shutdown()


def request_example(mock: Mock, operation: Operation, prefer: str, **headers: str) -> ClientResponse:
    path = BASE + operation.path
    for name in operation.path_names():
        path = path.replace(f"{{{name}}}", "anything")
    return send_request(mock, operation.method, path, {"prefer": prefer, **headers})


def test_every_status_of_every_operation_can_be_picked(mock: Mock) -> None:
    missed = []
    for operation in OPERATIONS.values():
        for status in operation.statuses:
            reply = request_example(mock, operation, f"code={status}")
            # The envelope holds it against the schema: what breaks it would be a 500.
            if (reply.status, reply.headers.get("preference-applied")) != (status, f"code={status}"):
                missed.append((operation.operation_id, status, reply.status))
    assert len(OPERATIONS) > 160
    assert missed == []


def test_every_named_example_can_be_picked_and_is_the_contracts(mock: Mock) -> None:
    picked = 0
    for operation in OPERATIONS.values():
        for status, response in operation.raw["responses"].items():
            for content in resolve(response).get("content", {}).values():
                for name, example in content.get("examples", {}).items():
                    reply = request_example(mock, operation, f'code={status}; foo, example="{name}"')
                    assert reply.status == int(status)
                    assert reply.headers["preference-applied"] == f"code={status}, example={name}"
                    assert reply.json() == resolve(example)["value"]
                    picked += 1
    assert picked > 400


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [("failed", 200, ("status", "failed")), ("invalid_token", 401, ("code", "invalid_token"))],
)
def test_a_name_alone_finds_its_status(mock: Mock, name: str, status: int, said: tuple[str, str]) -> None:
    reply = request_example(mock, OPERATIONS["get_generation"], f"example={name}")
    assert reply.status == status
    assert reply.json()[said[0]] == said[1]


def test_an_answer_without_names_is_the_example_of_its_schema(mock: Mock) -> None:
    schemas: dict[str, Any] = CONTRACT["components"]["schemas"]
    assert request_example(mock, OPERATIONS["get_brand"], "code=200").json() == schemas["Brand"]["example"]
    assert request_example(mock, OPERATIONS["list_brands"], "code=200").json()["data"] == [
        schemas["Brand"]["example"]
    ]


@pytest.mark.parametrize(
    "prefer", ["code=418", "example=nothing", "code=404, example=failed", "code=", "wait=1"]
)
def test_what_cannot_be_picked_is_ignored(mock: Mock, prefer: str) -> None:
    reply = request_example(mock, OPERATIONS["get_generation"], prefer)
    assert (reply.status, reply.json()["code"]) == (401, "not_authenticated")
    assert "preference-applied" not in reply.headers


@pytest.mark.parametrize("media_type", ["image/webp", "image/jpeg", "image/png", "image/avif"])
def test_a_picked_picture_opens(mock: Mock, media_type: str) -> None:
    operation = OPERATIONS["get_prediction_image"]
    reply = request_example(mock, operation, "code=200", accept=f"text/html, {media_type};q=0.9")
    assert reply.headers["content-type"] == media_type
    with Image.open(io.BytesIO(reply.body)) as image:
        assert Image.MIME[str(image.format)] == media_type


def test_a_picked_archive_and_a_picked_stream_are_what_they_say(mock: Mock) -> None:
    archive = request_example(mock, OPERATIONS["download_export"], "code=200")
    assert zipfile.ZipFile(io.BytesIO(archive.body)).namelist() == ["manifest.json"]
    event = request_example(mock, OPERATIONS["stream_generation_events"], "code=200")
    lines = dict(line.split(": ", 1) for line in event.body.decode().splitlines() if line)
    assert lines["event"] == "progress"
    assert json.loads(lines["data"])["status"] == "running"


def test_nothing_can_be_picked_outside_of_a_mock(tmp_path: Path) -> None:
    live = create_test_app(tmp_path)
    reply = request_example(live, OPERATIONS["get_generation"], "code=200")
    live.bridge.pool.shutdown()
    assert reply.status == 401
    assert "preference-applied" not in reply.headers
