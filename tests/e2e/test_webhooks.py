"""Test of a webhook delivery by a real server, verified with the Standard Webhooks library."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from tests.e2e.generation_steps import prepare_look
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.http_recorder import run_http_recorder
from tools.servers.server import running_server

SECONDS_TO_WAIT = 60


@pytest.mark.slow("it renders on a server of its own; tests/studio/test_webhooks.py sends to real endpoints")
def test_a_completed_generation_is_delivered_to_the_webhook_endpoint(tmp_path: Path) -> None:
    with (
        run_http_recorder() as client,
        running_server(tmp_path, OUTBOUND_ALLOWED_HOSTS=client.host) as server,
        Api(server.origin) as api,
    ):
        api.sign_in(EMAIL, PASSWORD)
        body = {"url": f"{client.url}/hooks", "event_types": ["generation.completed", "shot.approved"]}
        endpoint = api.post("/webhook-endpoints/", json=body)
        shot_id = prepare_look(api, 192, 256)["shots"][0]["id"]
        generation = api.post(f"/shots/{shot_id}/generate", json={"num_predictions": 1})
        deadline = time.monotonic() + SECONDS_TO_WAIT
        while not client.requests:
            assert time.monotonic() < deadline, server.log.read_text(errors="replace")[-2000:]
            time.sleep(0.05)
        webhook = Webhook(endpoint["secret"])
        event = webhook.verify(client.requests[0].body, dict(client.requests[0].headers))
        assert (event["type"], event["data"]["id"]) == ("generation.completed", generation["id"])
        assert event["data"]["url"] == f"{server.url}/generations/{generation['id']}"
        assert api.get(event["data"]["url"].removeprefix(server.url))["status"] == event["data"]["status"]
