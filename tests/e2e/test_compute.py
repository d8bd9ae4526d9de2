"""A real server whose pictures a Compute API makes: it orders, hears of them, dies, and still has them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx

from tests.compute_server import ComputeServer, compute_server, signature
from tests.e2e.customer import prepare_look, wait_for
from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.server import RunningServer, running_server

ADMIN = ("admin@example.com", "sartiq-admin")


def order(address: str, compute: ComputeServer) -> str:
    """A generation of two pictures by a new model of the Compute API, ordered there by now."""
    with Api(address) as api:
        api.sign_in(*ADMIN)
        tools = ["BASE_GENERATION"]
        wanted = {"name": "Compute", "provider": "COMPUTE", "provider_config": compute.config}
        model = api.post("/generation-models/", json={**wanted, "tool_types": tools})
        assert model["provider_config"] is None
        api.sign_in(EMAIL, PASSWORD)
        shot_id = prepare_look(api, 120, 160, "JPEG")["shots"][0]["id"]
        asked = {"num_predictions": 2, "model_id": model["id"]}
        generation_id = str(api.post(f"/shots/{shot_id}/generate", json=asked)["id"])
        wait_for(api, generation_id, "running")
        return generation_id


def call_back(server: RunningServer, **news: Any) -> httpx.Response:
    """Tell the server of a task, as a Compute API does."""
    body = json.dumps({"event_type": "task_status_update", "task_id": "task_0", **news}).encode()
    headers = {"Content-Type": "application/json", **signature(body, f"msg_{hash(body)}")}
    return httpx.post(f"{server.url}/tasks/webhook", content=body, headers=headers)


def hear_of_progress(server: RunningServer, generation_id: str) -> None:
    """Call back until the generation shows it: before the answer to the order no task is known."""
    with Api(server.address) as api:
        api.sign_in(EMAIL, PASSWORD)
        for number in range(100):
            assert call_back(server, progress=40, metadata={"number": number}).status_code == 204
            if api.get(f"/generations/{generation_id}")["progress"] == 40:
                return
            time.sleep(0.1)
    raise AssertionError("the generation does not show its progress")


def test_pictures_of_a_compute_api_arrive_though_the_server_is_killed_meanwhile(tmp_path: Path) -> None:
    with compute_server() as compute:
        settings = {
            "LEASE_SECONDS": "2",
            "OUTBOUND_ALLOWED_HOSTS": compute.server.host,
        }
        with running_server(tmp_path, **settings) as server:
            generation_id = order(server.address, compute)
            hear_of_progress(server, generation_id)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        compute.finish()
        with running_server(tmp_path, **settings) as server, Api(server.address) as api:
            assert call_back(server, progress=100, status="completed").status_code == 204
            api.sign_in(EMAIL, PASSWORD)
            done = wait_for(api, generation_id, "completed", "failed")
    assert (done["status"], done["cost_credits"], len(compute.tasks)) == ("completed", 2, 1)
    first = done["predictions"][0]
    assert (first["width"], first["height"], first["content_type"]) == (120, 160, "image/jpeg")
    assert (first["seed"], first["provenance"]["provider"]) == (100, "COMPUTE")
