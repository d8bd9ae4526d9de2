"""Tests of a server that is killed or terminated during a generation: nothing is lost or rendered twice."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.generation_steps import prepare_look, wait_for_generation
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import running_server

LARGE_SIZE = (1_500, 2_000)
LEASE = {"LEASE_SECONDS": "2"}


@pytest.fixture
def storage(own_database_url: str) -> dict[str, str]:
    """The setting that gives a server its own database."""
    return {"DATABASE_URL": own_database_url}


def request_large_generation(url: str) -> tuple[str, str]:
    """Request a generation that takes seconds; return its id and its shot's id once it is running."""
    with Api(url) as api:
        api.sign_in(EMAIL, PASSWORD)
        shot_id = prepare_look(api, *LARGE_SIZE)["shots"][0]["id"]
        generation = api.post(f"/shots/{shot_id}/generate", json={"num_predictions": 4})
        wait_for_generation(api, generation["id"], "running")
        return str(generation["id"]), str(shot_id)


@contextmanager
def open_stalled_request(url: str) -> Iterator[None]:
    """Send the start of a request and keep the connection open for the block."""
    host = urlsplit(url)
    with socket.create_connection((host.hostname, host.port)) as connection:
        head = "POST /api/v1/login/access-token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
        connection.sendall(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\nuser".encode())
        yield


def wait_for_generation_and_shot(url: str, generation_id: str) -> dict[str, Any]:
    """Return the completed or failed generation with its shot."""
    with Api(url) as api:
        api.sign_in(EMAIL, PASSWORD)
        done = wait_for_generation(api, generation_id, "completed", "failed")
        return done | {"shot": api.get(f"/shots/{done['shot_id']}")}


@pytest.mark.slow("it renders large images twice")
def test_a_generation_of_a_killed_server_is_completed_exactly_once(
    tmp_path: Path, storage: dict[str, str]
) -> None:
    with running_server(tmp_path, **LEASE, **storage) as server:
        generation_id, _ = request_large_generation(server.origin)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with running_server(tmp_path, **LEASE, **storage) as server:
        done = wait_for_generation_and_shot(server.origin, generation_id)
    assert (done["status"], done["attempts"], done["cost_credits"]) == ("completed", 2, 4)
    assert [prediction["index"] for prediction in done["predictions"]] == [0, 1, 2, 3]
    assert (done["shot"]["status"], done["shot"]["predictions_count"]) == ("pending_review", 4)


@pytest.mark.slow("it renders eight large images")
def test_a_terminated_server_finishes_or_returns_its_work_in_time(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        generation_id, _ = request_large_generation(server.origin)
        with open_stalled_request(server.origin):
            terminated_at = time.monotonic()
            server.process.terminate()
            try:
                server.process.wait(15)
            except subprocess.TimeoutExpired:
                pytest.fail("the server did not end")
            assert time.monotonic() - terminated_at < 10
    with running_server(tmp_path) as server:
        done = wait_for_generation_and_shot(server.origin, generation_id)
    assert (done["status"], len(done["predictions"])) == ("completed", 4)
    assert done["attempts"] == 1
