"""Tests of a real server with a Compute API: requests, callbacks, and recovery after a crash."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.generation_steps import prepare_look, wait_for_generation
from tests.support.servers.compute import ComputeServer, run_compute_server, signature_headers
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, running_server

ADMIN = ("admin@example.com", "sartiq-admin")


def create_remote_generation(url: str, compute: ComputeServer) -> str:
    """Create a generation of two images with a new Compute model; return its id once it is running."""
    with Api(url) as api:
        api.sign_in(*ADMIN)
        tools = ["BASE_GENERATION"]
        body = {"name": "Compute", "provider": "COMPUTE", "provider_config": compute.config}
        model = api.post("/generation-models/", json={**body, "tool_types": tools})
        assert model["provider_config"] is None
        api.sign_in(EMAIL, PASSWORD)
        shot_id = prepare_look(api, 120, 160, "JPEG")["shots"][0]["id"]
        request = {"num_predictions": 2, "model_id": model["id"]}
        generation_id = str(api.post(f"/shots/{shot_id}/generate", json=request)["id"])
        wait_for_generation(api, generation_id, "running")
        return generation_id


def send_callback(server: RunningServer, **payload: Any) -> httpx.Response:
    """Send a signed callback for a task, as a Compute API does."""
    body = json.dumps({"event_type": "task_status_update", "task_id": "task_0", **payload}).encode()
    headers = {"Content-Type": "application/json", **signature_headers(body, f"msg_{hash(body)}")}
    return httpx.post(f"{server.url}/tasks/webhook", content=body, headers=headers)


def send_progress(server: RunningServer, generation_id: str) -> None:
    """Send progress until the generation shows it: the server ignores callbacks before it knows the task."""
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        for number in range(100):
            assert send_callback(server, progress=40, metadata={"number": number}).status_code == 204
            if api.get(f"/generations/{generation_id}")["progress"] == 40:
                return
            time.sleep(0.1)
    raise AssertionError("the generation does not show its progress")


@pytest.mark.slow("tests/studio/test_compute.py covers each step")
def test_images_of_a_compute_api_are_received_after_the_server_was_killed(tmp_path: Path) -> None:
    with run_compute_server() as compute:
        settings = {
            "LEASE_SECONDS": "2",
            "OUTBOUND_ALLOWED_HOSTS": compute.server.host,
        }
        with running_server(tmp_path, **settings) as server:
            generation_id = create_remote_generation(server.origin, compute)
            send_progress(server, generation_id)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        compute.finish()
        with running_server(tmp_path, **settings) as server, Api(server.origin) as api:
            assert send_callback(server, progress=100, status="completed").status_code == 204
            api.sign_in(EMAIL, PASSWORD)
            done = wait_for_generation(api, generation_id, "completed", "failed")
    assert (done["status"], done["cost_credits"], len(compute.tasks)) == ("completed", 2, 1)
    first = done["predictions"][0]
    assert (first["width"], first["height"], first["content_type"]) == (120, 160, "image/jpeg")
    assert (first["seed"], first["provenance"]["provider"]) == (100, "COMPUTE")
