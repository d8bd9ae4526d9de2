"""Tests of the command behind `make run`: output, imports, reasons not to start, and shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from handlers.server import cli
from tools.bench.processes import resident_bytes
from tools.demo import EMAIL, PASSWORD, Api
from tools.sample_images.photograph import load_phone_photo
from tools.servers.prepared_folder import copy_prepared_folder
from tools.servers.processes import RedisServer
from tools.servers.server import (
    COMPUTE_WEBHOOK_SECRET,
    ROOT,
    SECRET_KEY,
    find_interpreter,
    free_port,
    prepare_folder,
    running_server,
)
from tools.servers.server_databases import database_of

# Needed only for rendering, or if a broker, a bucket or a trace collector is configured.
LAZY_MODULES = {"cv2", "celery", "redis", "boto3", "opentelemetry.sdk", "requests.models", "httpx._client"}
# The first start needs them to create the schema and read the demo images; later the first upload loads them.
FIRST_START_MODULES = {"alembic", "numpy", "PIL"}
# Memory limit of an idle server. An operation of the contract takes about 0.2 MB.
MAX_MEMORY_BYTES = 155_000_000


def start_server(folder: Path, **settings: str) -> subprocess.Popen[str]:
    overridden = ("SARTIQ_ENV", "SECRET_KEY", "DATABASE_URL", "PUBLIC_URL", "PORT", "HOST")
    environment = {name: value for name, value in os.environ.items() if name not in overridden}
    return subprocess.Popen(
        [find_interpreter("handlers"), "-m", "handlers"],
        cwd=ROOT,
        env=environment | {"DATA_DIR": str(folder), "DATABASE_URL": database_of(folder)} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_output(process: subprocess.Popen[str]) -> str:
    """Return what a server prints until it serves requests."""
    said = ""
    assert process.stdout
    while "Ctrl-C" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with tables and rows, as after a first start."""
    folder = tmp_path_factory.mktemp("data")
    copy_prepared_folder(folder, {}, prepare_folder)
    return folder


@pytest.fixture(scope="module")
def server(data_folder: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A server on this folder: the process, its port and its output until it served, with its imports."""
    port = free_port()
    process = start_server(data_folder, PORT=str(port), PYTHONPROFILEIMPORTTIME="1")
    try:
        yield process, port, read_output(process)
    finally:
        process.kill()
        process.communicate()


def test_the_start_up_output_has_the_url_the_demo_account_and_how_to_stop(server) -> None:
    _, port, said = server
    assert f"http://localhost:{port}/api/v1/docs" in said
    assert "demo@example.com / sartiq-demo" in said


def test_the_server_is_ready_when_it_prints_its_url(server) -> None:
    _, port, _ = server
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/utils/readiness")
    assert answer.status_code == 200, answer.text
    assert "server" not in answer.headers


def list_loaded_modules(output: str) -> set[str]:
    """Return the modules that a server with PYTHONPROFILEIMPORTTIME imported until it was ready."""
    lines = output.splitlines()
    loaded = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert {"sqlalchemy", "connexion", "uvicorn"} <= loaded
    return loaded


def test_later_starts_import_neither_migrations_nor_image_libraries(server) -> None:
    process, _, said = server
    assert list_loaded_modules(said) & (LAZY_MODULES | FIRST_START_MODULES) == set()
    # Measured with /proc, which only Linux has.
    if sys.platform == "linux":
        assert resident_bytes(process.pid) < MAX_MEMORY_BYTES


@pytest.mark.slow("`--prepare-only`, which prepared the folder of the other tests, runs the same function")
def test_the_first_start_creates_the_tables_and_the_demo_account(tmp_path: Path) -> None:
    port = free_port()
    process = start_server(tmp_path, PORT=str(port))
    try:
        read_output(process)
        with Api(f"http://127.0.0.1:{port}") as api:
            api.sign_in(EMAIL, PASSWORD)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow("the test of later starts proves most of it")
@pytest.mark.parametrize("mode", ["live", "mock"])
def test_optional_dependencies_are_not_imported_at_startup(tmp_path: Path, mode: str) -> None:
    settings = {"SARTIQ_MODE": mode, "PYTHONPROFILEIMPORTTIME": "1"}
    with running_server(tmp_path, prepares=True, **settings) as server:
        assert list_loaded_modules(server.log.read_text()) & LAZY_MODULES == set()


@pytest.mark.slow("it starts a process")
def test_a_second_server_on_the_same_port_exits_with_the_reason(server, data_folder: Path) -> None:
    _, port, _ = server
    second = start_server(data_folder, PORT=str(port))
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    advice = "stop the other process, or set another PORT"
    assert said == f"Not started: HOST=127.0.0.1 PORT={port}: address already in use: {advice}\n"
    assert "Ctrl-C" not in said


def test_sigterm_stops_the_server(server) -> None:
    process, _, _ = server
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=15)
    assert time.monotonic() - began < 12


@pytest.mark.slow("it starts a process; tests/studio/test_masks.py covers the message")
def test_a_mask_model_that_cannot_be_read_stops_the_start(data_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "missing.onnx"
    rejected = start_server(data_folder, PORT=str(free_port()), MASK_MODEL=str(path))
    said, _ = rejected.communicate(timeout=60)
    assert rejected.returncode == 2
    assert (
        f"Not started: MASK_MODEL: the file cannot be read: [Errno 2] No such file or directory: '{path}'"
        in said
    )


@pytest.mark.slow("it starts a server beside Redis")
def test_a_server_with_a_broker_never_loads_the_mask_model(tmp_path: Path, broker: RedisServer) -> None:
    """The workers cut products out, so a path that exists only there does not stop the server."""
    settings = {"CELERY_BROKER_URL": broker.url, "MASK_MODEL": "/only/on/the/workers.onnx"}
    with (
        running_server(tmp_path, SARTIQ_ENV="development", **settings) as server,
        Api(server.origin) as api,
    ):
        api.sign_in(EMAIL, PASSWORD)
        product = api.post("/products/", json={"name": "Mug"})
        files = {"file": ("mug.jpg", load_phone_photo(), "image/jpeg")}
        image = api.post(f"/products/{product['id']}/images", data={"type": "front"}, files=files)
        path = f"/products/{product['id']}/images/{image['id']}/cutout"
        assert api.client.get(path.removeprefix("/")).json()["code"] == "cutout_pending"
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "cv2" not in maps


def test_production_does_not_start_with_the_default_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    for name, value in {"SARTIQ_ENV": "production", "MAIL": "off", "DATA_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert cli.main([]) == 2
    assert capsys.readouterr().err.startswith("Not started: SECRET_KEY")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"CELERY_BROKER_URL": "", "DATABASE_URL": "postgresql://localhost/name"}, "CELERY_BROKER_URL"),
        ({"CELERY_BROKER_URL": "redis://localhost", "DATABASE_URL": ""}, "DATABASE_URL"),
    ],
)
def test_several_workers_need_what_they_share(
    settings: dict[str, str],
    missing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = {"SARTIQ_ENV": "test", "SECRET_KEY": SECRET_KEY, "MAIL": "off", "DATA_DIR": str(tmp_path / "data")}
    for name, value in {**own, "COMPUTE_WEBHOOK_SECRET": COMPUTE_WEBHOOK_SECRET, **settings}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["--workers", "2"]) == 2
    assert capsys.readouterr().err.startswith(f"Not started: --workers needs {missing}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", ["0", "65", "-1", "two"])
def test_the_number_of_workers_has_limits(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--workers", count])
    assert ended.value.code == 2
    assert f"'{count}' is not a number from 1 to 64" in capsys.readouterr().err


@pytest.mark.slow("it starts a process")
def test_a_database_that_cannot_be_reached_stops_the_start_with_the_reason(tmp_path: Path) -> None:
    url = f"postgresql://user:hidden@127.0.0.1:{free_port()}/name"
    rejected = start_server(tmp_path, DATABASE_URL=url)
    said, _ = rejected.communicate(timeout=30)
    assert rejected.returncode == 2
    assert said.startswith("Not started: the database cannot be reached: connection failed"), said
    assert (len(said.splitlines()), "hidden" in said) == (1, False), said


@pytest.mark.parametrize("seconds", ["-5", "soon"])
def test_wait_takes_a_number_of_seconds(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["wait", "--seconds", seconds])
    assert ended.value.code == 2
    assert f"'{seconds}' is not a number of seconds" in capsys.readouterr().err
